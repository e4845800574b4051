// The tables of a stage, a page at a time, and single records with all their text.

import { address, el, number, painted, read } from "./dom.js";
import { say } from "./words.js";

const AT_ONCE = 50;
const WIDE = new Set(["text", "prompt", "target", "meta"]);
const opened = new Map();

export async function show({ main, name, rest, isCurrent }) {
  if (!opened.has(name)) opened.set(name, await read("records/tables", { name }));
  const tables = opened.get(name);
  const table = tables.find((item) => item.name === rest[0]) ?? tables[0];
  const row = Math.max(0, Number.parseInt(rest[1] ?? "0", 10) || 0);
  const single = rest[2] === "one";
  const found = single ? [await read("records/record", { name, table: table.name, row })] : await read("records/page", { name, table: table.name, row });
  if (!isCurrent()) return null;
  const go = (wanted) => {
    if (wanted >= 0 && wanted < table.rows) location.hash = address("records", name, table.name, wanted, ...(single ? ["one"] : []));
  };
  const step = single ? 1 : AT_ONCE;
  const choice = el("select", { "aria-label": say("table"), on: { change: () => (location.hash = address("records", name, choice.value)) } },
    tables.map((item) => el("option", { value: item.name }, item.name)));
  choice.value = table.name;
  const last = Math.min(row + step, table.rows) - 1;
  main.replaceChildren(el("article", { class: "records" },
    el("div", { class: "toolbar" }, el("label", { class: "group" }, say("table"), " ", choice),
      el("span", { class: "group" }, el("button", { type: "button", title: `${say("previous")} (k)`, on: { click: () => go(row - step) } }, "‹"),
        el("span", { class: "soft" }, say("rows_to", number(Math.min(row, table.rows)), number(last), number(table.rows))),
        el("button", { type: "button", title: `${say("next")} (j)`, on: { click: () => go(row + step) } }, "›")),
      single && el("a", { class: "group", href: address("records", name, table.name, row - (row % AT_ONCE)) }, say("back"))),
    single ? record(found[0]) : list(found, table, name)));
  return { keys: { j: () => go(row + step), k: () => go(row - step) } };
}

function list(found, table, name) {
  const columns = [...table.columns].sort((one, other) => WIDE.has(one) - WIDE.has(other));
  const shown = columns.filter((column) => column !== "meta").slice(0, 9);
  return el("div", { class: "scroll" }, el("table", { class: "records" },
    el("thead", {}, el("tr", {}, el("th", {}, "#"), shown.map((column) => el("th", {}, column)))),
    el("tbody", {}, found.map((item) => el("tr", {}, el("td", {}, el("a", { href: address("records", name, table.name, item.row, "one") }, number(item.row))),
      shown.map((column) => el("td", { class: WIDE.has(column) ? "wide" : "" }, el("bdi", {}, painted(item.values[column])))))))));
}

function record(item) {
  return el("dl", { class: "fields record" }, Object.entries(item.values).map(([name, spans]) =>
    [el("dt", {}, el("code", {}, name)), el("dd", { class: "text", dir: "auto" }, painted(spans))]));
}
