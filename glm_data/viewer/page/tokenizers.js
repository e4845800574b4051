// Tokenizers beside each other: one text in the pieces of each, and their figures by kind of text.

import { el, give, isolated, number, painted, read, settled } from "./dom.js";
import { say } from "./words.js";

const START = "The quick brown fox jumps over the lazy dog. 千里之行，始于足下。";
let text = START;
let figures = null;

export async function show({ main, name, isCurrent }) {
  figures ??= await read("tokenizers/all", { name });
  if (!isCurrent()) return null;
  const box = el("textarea", { rows: 4, dir: "auto", value: text, spellcheck: "false", id: "text" });
  const results = el("div", { class: "cuts" });
  const status = el("p", { class: "failed", role: "alert", hidden: true });
  let turn = 0;
  const cut = async () => {
    const mine = ++turn;
    text = box.value;
    try {
      const found = await give("tokenizers/cut", { name, text });
      if (mine === turn) results.replaceChildren(...found.map((item) => drawCut(item, figures.models[item.name])));
      status.hidden = true;
    } catch (error) {
      status.textContent = error.message;
      status.hidden = false;
    }
  };
  box.addEventListener("input", settled(cut, 150));
  const use = (sample) => {
    box.value = sample;
    cut();
  };
  const samples = Object.entries(figures.samples).map(([kind, sample]) => el("button", { type: "button", on: { click: () => use(sample) } }, kind));
  main.replaceChildren(el("article", { class: "tokenizers" },
    el("label", { for: "text" }, say("your_text")), box,
    samples.length > 0 && el("p", { class: "samples-of" }, el("span", { class: "soft" }, say("samples")), samples),
    status, results, table(figures.kinds)));
  await cut();
  return { keys: {} };
}

function drawCut(item, pieces) {
  const facts = [say("vocabulary", number(pieces)), say("tokens", number(item.tokens)), say("bytes_a_token", item.bytes_per_token.toFixed(2)),
    say("byte_pieces", number(item.byte_pieces)), say(item.exact ? "exact" : "inexact")];
  return el("section", { class: "cut" }, el("h2", {}, isolated(item.name), el("span", { class: "facts" }, facts.map((fact) => el("span", {}, fact)))),
    el("div", { class: "text pieces" }, item.pieces.map((spans, place) => el("span", { class: `t p${place % 5}` }, painted(spans)))));
}

function table(kinds) {
  const models = Object.keys(kinds);
  const names = Object.keys(kinds[models[0]] ?? {});
  if (!names.length) return "";
  const best = Object.fromEntries(names.map((kind) => [kind, Math.max(...models.map((model) => kinds[model][kind].bytes_per_token))]));
  const most = Math.max(...Object.values(best));
  const cell = (model, kind) => {
    const value = kinds[model][kind].bytes_per_token;
    return el("td", {}, el("span", { class: "meter" }, el("i", { style: { width: `${(100 * value) / most}%` } })),
      el("span", { class: `figure ${models.length > 1 && value === best[kind] ? "best" : ""}` }, value.toFixed(2)));
  };
  return el("section", {}, el("h3", {}, say("figures"), el("small", {}, say("more_better"))), el("div", { class: "scroll" }, el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, el("th", {}, say("model")), names.map((kind) => el("th", {}, kind)))),
    el("tbody", {}, models.map((model) => el("tr", {}, el("th", {}, isolated(model)), names.map((kind) => cell(model, kind))))))));
}
