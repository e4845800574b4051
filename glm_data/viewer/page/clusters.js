// Clusters of duplicates: what went, what for, and the two texts side by side.

import { address, el, isolated, number, painted, read } from "./dom.js";
import { say } from "./words.js";

const opened = new Map();

export async function show({ main, name, rest, isCurrent }) {
  if (!opened.has(name)) opened.set(name, await read("clusters/all", { name }));
  const found = opened.get(name);
  if (!isCurrent()) return null;
  const place = Math.min(Math.max(0, Number.parseInt(rest[0] ?? "0", 10) || 0), Math.max(0, found.clusters.length - 1));
  const go = (wanted) => {
    if (wanted >= 0 && wanted < found.clusters.length) location.hash = address("clusters", name, wanted);
  };
  const cluster = found.clusters[place];
  const detail = el("section", { class: "detail" });
  const list = el("ol", { class: "list", "aria-label": say("cluster_list") }, found.clusters.map((item, index) => line(item, index, place, name)));
  const kinds = Object.entries(found.rules).map(([rule, count]) => el("span", {}, `${ruleName(rule)} ${number(count)}`));
  main.replaceChildren(el("article", { class: "split" },
    el("aside", {}, el("h2", {}, say("removed_of", number(found.removed), number(found.records))), el("p", { class: "facts" }, kinds),
      el("h3", {}, say("cluster_list")), list),
    el("div", {}, cluster ? detail : el("p", { class: "empty" }, say("no_clusters")), overlap(found.overlap))));
  list.children[place]?.scrollIntoView({ block: "nearest" });
  const state = { chosen: 0, keys: { j: () => go(place + 1), k: () => go(place - 1) } };
  if (cluster) await fill(detail, name, cluster, state);
  return state;
}

const ruleName = (rule) => say(`rule_${rule}`);

function line(item, index, place, name) {
  return el("li", {}, el("a", { href: address("clusters", name, index), "aria-current": index === place && "true" },
    el("b", {}, number(item.documents)), isolated(item.kept, { class: "id" })));
}

async function fill(detail, name, cluster, state) {
  const pair = el("div", { class: "pair" });
  const buttons = cluster.removed.map((item, index) => removedLine(item, () => choose(index)));
  const choose = async (index) => {
    state.chosen = index;
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(at === index)));
    pair.replaceChildren(el("p", { class: "soft" }, say("loading")));
    try {
      const found = await read("clusters/pair", { name, removed: cluster.removed[index].id, kept: cluster.kept });
      if (state.chosen === index) pair.replaceChildren(facing(cluster.removed[index].id, cluster.kept, found));
    } catch (error) {
      pair.replaceChildren(el("p", { class: "failed", role: "alert" }, error.message));
    }
  };
  state.keys.n = () => choose(Math.min(buttons.length - 1, state.chosen + 1));
  state.keys.p = () => choose(Math.max(0, state.chosen - 1));
  const more = cluster.documents - 1 - cluster.removed.length;
  detail.replaceChildren(
    el("h2", {}, el("span", { class: "tag good" }, say("kept")), isolated(cluster.kept, { class: "id" }),
      el("span", { class: "soft" }, say("cluster_documents", number(cluster.documents)))),
    el("h3", {}, say("least_first")), el("div", { class: "removals" }, buttons, more > 0 && el("p", { class: "soft" }, `… ${number(more)}`)), pair);
  await choose(0);
}

function removedLine(item, act) {
  return el("button", { type: "button", class: "removal", on: { click: act } }, isolated(item.id, { class: "id" }),
    el("span", { class: "meter", title: say("similarity") }, el("i", { style: { width: `${100 * item.jaccard}%` } })),
    el("span", { class: "figure" }, item.jaccard.toFixed(3)),
    el("span", { class: "soft" }, `${say("containment")} ${(100 * item.containment).toFixed(1)} %`), el("span", { class: "soft" }, ruleName(item.rule)));
}

function facing(removed, kept, found) {
  const head = el("div", { class: "facing head" },
    el("div", {}, el("span", { class: "tag bad" }, say("removed")), isolated(removed, { class: "id" }), el("small", {}, number(found.characters[0]))),
    el("div", {}, el("span", { class: "tag good" }, say("kept")), isolated(kept, { class: "id" }), el("small", {}, number(found.characters[1]))));
  if (!found.facing.length) {
    return el("div", {}, head, el("p", {}, say("same")), el("div", { class: "text plain", dir: "auto" }, painted(found.beginning)));
  }
  const rows = found.facing.map(([left, right, alike]) => [
    alike > 0 && el("p", { class: "alike" }, say("alike", number(alike))),
    (left.length > 0 || right.length > 0) && el("div", { class: "facing" }, el("div", { class: "text", dir: "auto" }, painted(left)), el("div", { class: "text", dir: "auto" }, painted(right))),
  ]);
  return el("div", {}, head, rows);
}

function overlap(found) {
  if (!found) return "";
  const places = found.sources.map((_, place) => place)
    .filter((place) => found.removed[place].some(Boolean) || found.removed.some((row) => row[place])).slice(0, 16);
  if (!places.length) return "";
  const most = Math.max(...places.flatMap((row) => places.map((column) => found.removed[row][column])), 1);
  const cell = (row, column) => {
    const count = found.removed[row][column];
    const weight = count ? 8 + 52 * (Math.log1p(count) / Math.log1p(most)) : 0;
    return el("td", { style: { "--weight": `${weight}%` }, class: count ? "heat" : "" }, count ? number(count) : "·");
  };
  return el("section", { class: "overlap" }, el("h3", {}, say("overlap")), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", {}), places.map((place, index) => el("th", { title: found.sources[place] }, String(index + 1))))),
    el("tbody", {}, places.map((row, index) => el("tr", {}, el("th", {}, `${index + 1} `, isolated(found.sources[row])), places.map((column) => cell(row, column))))))));
}
