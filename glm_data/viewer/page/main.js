// The frame: what there is to look at, which of it is shown, language, colours, keys.

import { address, el, isolated, read } from "./dom.js";
import { language, say, setLanguage } from "./words.js";
import * as clusters from "./clusters.js";
import * as filter from "./filter.js";
import * as mip from "./mip.js";
import * as records from "./records.js";
import * as rows from "./rows.js";
import * as tokenizers from "./tokenizers.js";

const VIEWS = { rows, clusters, filter, mip, tokenizers, records };
const THEMES = ["auto", "light", "dark"];
const main = document.getElementById("main");
const dialog = document.getElementById("keys");
let about = null;
let shown = { keys: {} };
let turn = 0;

const remembered = (name, otherwise) => {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise;
  }
};
const remember = (name, value) => {
  try {
    localStorage.setItem(name, value);
  } catch {
    // private windows remember nothing
  }
};

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  remember("theme", theme);
  document.getElementById("theme").textContent = say(`theme_${theme}`);
}

function useLanguage(wanted) {
  setLanguage(wanted);
  remember("language", wanted);
  const button = document.getElementById("language");
  button.textContent = say("language");
  button.title = say("language_tip");
  document.getElementById("theme").title = say("theme_tip");
  document.getElementById("help").title = say("help_tip");
  document.getElementById("skip").textContent = say("skip");
  useTheme(document.documentElement.dataset.theme);
}

function drawThings() {
  const several = (view) => about.things.filter((item) => item.view === view).length > 1;
  const [, view, name] = place();
  const links = about.things.map((item) => {
    const current = item.view === view && item.name === name;
    const label = [el("span", {}, say(item.view))];
    if (several(item.view)) label.push(isolated(item.name, { class: "which" }));
    if (item.view === "report") return el("a", { href: "/report", class: "away" }, label);
    return el("a", { href: address(item.view, item.name), "aria-current": current && "page" }, label);
  });
  document.getElementById("things").replaceChildren(...links);
  document.getElementById("path").textContent = about.name;
  document.getElementById("path").title = about.path;
}

/** The address as `["#", view, name, …]`; empty for one that was typed wrongly. */
function place() {
  try {
    return location.hash.split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

async function show() {
  const mine = ++turn;
  const [, view, name, ...rest] = place();
  if (!VIEWS[view]) {
    const first = about.things.find((item) => VIEWS[item.view]);
    if (first) location.replace(address(first.view, first.name));
    else main.replaceChildren(el("p", { class: "empty" }, say("nothing")));
    return;
  }
  drawThings();
  document.getElementById("tip").hidden = true;
  document.title = `${say(view)} – ${about.name}`;
  const thing = about.things.find((item) => item.view === view && item.name === name);
  try {
    const next = await VIEWS[view].show({ main, name, rest, about, thing, isCurrent: () => mine === turn });
    if (mine === turn) shown = next ?? { keys: {} };
  } catch (error) {
    if (mine !== turn) return;
    shown = { keys: {} };
    main.replaceChildren(el("div", { class: "failed", role: "alert" }, el("h2", {}, say("failed")), el("p", {}, error.message)));
  }
  if (mine === turn) main.dataset.drawn = location.hash;
}

function showKeys() {
  const line = (keys, words) => [el("dt", {}, keys.map((key) => el("kbd", {}, key))), el("dd", {}, say(words))];
  const common = [["j"], ["k"], ["w", "W"], ["g"], ["n", "p"], ["←", "→"], ["a"], ["e", "E"], ["l"], ["t"], ["?"]];
  const words = ["key_j", "key_k", "key_w", "key_g", "key_n", "key_arrows", "key_a", "key_e", "key_l", "key_t", "key_help"];
  dialog.replaceChildren(
    el("h2", {}, say("keys")),
    el("dl", {}, common.map((keys, index) => line(keys, words[index]))),
    el("form", { method: "dialog" }, el("button", { autofocus: true }, say("close"))),
  );
  dialog.showModal();
}

function nextTheme() {
  useTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
}

function nextLanguage() {
  useLanguage(language() === "en" ? "zh" : "en");
  show();
}

const KEYS = { l: nextLanguage, t: nextTheme, "?": showKeys };

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select");
  if (typing && event.key === "Escape") typing.blur();
  if (typing || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = shown.keys[event.key] ?? KEYS[event.key];
  if (!act || (event.target.type === "range" && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  act();
});
document.getElementById("language").addEventListener("click", nextLanguage);
document.getElementById("theme").addEventListener("click", nextTheme);
document.getElementById("help").addEventListener("click", showKeys);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", show);

document.documentElement.dataset.theme = THEMES.includes(remembered("theme")) ? remembered("theme") : "auto";
useLanguage(remembered("language", navigator.language.startsWith("zh") ? "zh" : "en"));
main.replaceChildren(el("p", { class: "empty" }, say("loading")));
about = await read("about");
show();
