// Packed rows: which one, what it is of, and its sheet.

import { address, el, isolated, number, read } from "./dom.js";
import { Sheet } from "./sheet.js";
import { say } from "./words.js";

const MEASURES = ["padding", "targets", "bytes", "repetition"];
/** Milliseconds that a row is looked at before its neighbours are fetched. */
const REST = 250;
let allArrows = false;
let measure = MEASURES[0];
/** Which of the worst rows was shown last. */
let ranked = 0;

const held = new Map();
/** A row, held for a while, so that the next one is there when it is wanted. */
function fetchRow(name, row, epoch) {
  const key = `${name}/${row}/${epoch}`;
  if (!held.has(key)) {
    const asked = read("rows/row", { name, row, epoch });
    asked.catch(() => held.delete(key));
    held.set(key, asked);
    if (held.size > 12) held.delete(held.keys().next().value);
  }
  return held.get(key);
}

const rankings = new Map();
function fetchRanking(name, by) {
  const key = `${name}/${by}`;
  if (!rankings.has(key)) rankings.set(key, read("rows/worst", { name, by }));
  return rankings.get(key);
}

export async function show({ main, name, rest, thing, isCurrent }) {
  const number_ = Math.max(0, Number.parseInt(rest[0] ?? "0", 10) || 0);
  const epoch = Math.max(0, Number.parseInt(rest[1] ?? "0", 10) || 0);
  const view = await fetchRow(name, number_, epoch);
  if (!isCurrent()) return null;
  const page = new RowPage(name, view);
  main.replaceChildren(page.node);
  const near = [number_ + 1, number_ - 1].filter((row) => row >= 0 && row < thing.size);
  setTimeout(() => isCurrent() && near.forEach((row) => fetchRow(name, row, epoch).catch(() => {})), REST);
  return page;
}

class RowPage {
  constructor(name, view) {
    this.name = name;
    this.view = view;
    this.note = el("span", { class: "note", role: "status" });
    this.sheet = new Sheet(view, allArrows);
    this.node = el("article", { class: "rows" }, this.toolbar(), this.strip(), this.origins(), this.sheet.node);
    this.keys = {
      j: () => this.go(view.row + 1),
      k: () => this.go(view.row - 1),
      w: () => this.worst(1),
      W: () => this.worst(-1),
      e: () => this.go(view.row, view.epoch + 1),
      E: () => this.go(view.row, view.epoch - 1),
      g: () => this.input.select(),
      a: () => this.switchArrows(),
      ...this.sheet.keys,
    };
    this.sayRank();
  }

  go(row, epoch = this.view.epoch) {
    if (row >= 0 && row < this.view.rows && epoch >= 0) location.hash = address("rows", this.name, row, ...(epoch ? [epoch] : []));
  }

  async worst(by) {
    this.note.textContent = say("loading");
    const { rows } = await fetchRanking(this.name, measure);
    ranked = rows[ranked] === this.view.row ? Math.min(rows.length - 1, Math.max(0, ranked + by)) : 0;
    this.go(rows[ranked]);
    this.sayRank();
  }

  async sayRank() {
    if (!rankings.has(`${this.name}/${measure}`)) return;
    const { rows, values, looked_at } = await fetchRanking(this.name, measure);
    const at = rows.indexOf(this.view.row);
    const share = at < 0 ? "" : `${(100 * values[at]).toFixed(1)} %`;
    const place = at < 0 ? [] : [say("worst_place", at + 1, say(`rank_${measure}`, share))];
    this.note.textContent = [...place, say("looked_at", number(looked_at))].join(" · ");
  }

  toolbar() {
    const { row, rows, epoch } = this.view;
    this.input = el("input", { type: "number", min: 0, max: rows - 1, value: row, "aria-label": say("row"),
      on: { change: () => this.go(Number(this.input.value)) } });
    const choice = el("select", { "aria-label": say("worst"), on: { change: () => { measure = choice.value; this.sayRank(); } } },
      MEASURES.map((by) => el("option", { value: by }, say(`by_${by}`))));
    choice.value = measure;
    const epochs = el("input", { type: "number", min: 0, value: epoch, class: "short", title: say("epoch_tip"),
      "aria-label": say("epoch"), on: { change: () => this.go(row, Number(epochs.value)) } });
    this.toggle = el("input", { type: "checkbox", on: { change: () => this.switchArrows() } });
    this.toggle.checked = allArrows;
    const button = (words, key, act) => el("button", { type: "button", title: `${say(words)} (${key})`, on: { click: act } },
      words === "next" ? "›" : "‹");
    return el("div", { class: "toolbar" },
      el("span", { class: "group" }, button("previous", "k", () => this.go(row - 1)), el("label", {}, say("row"), " ", this.input),
        el("span", { class: "soft" }, say("of_rows", number(rows))), button("next", "j", () => this.go(row + 1))),
      el("span", { class: "group" }, el("label", {}, say("worst"), " ", choice),
        button("previous", "W", () => this.worst(-1)), button("next", "w", () => this.worst(1)), this.note),
      el("span", { class: "group" }, el("label", {}, say("epoch"), " ", epochs)),
      el("label", { class: "group" }, this.toggle, " ", say("arrows")));
  }

  strip() {
    const { pieces, length, used, targets } = this.view;
    const part = (from, to, style) => el("i", { class: style, style: { width: `${(100 * (to - from)) / length}%` } });
    const bars = pieces.flatMap((piece) => [part(piece.start, piece.sep, `${piece.kind} a`), part(piece.sep, piece.end, `${piece.kind} b`)]);
    const kinds = [...new Set(pieces.map((piece) => piece.kind))];
    const facts = [
      ...kinds.map((kind) => el("span", { class: `kind ${kind}` }, say(`kind_${kind}`))),
      say("pieces", pieces.length), say("used", number(used), number(length)), say("targets", number(targets)),
    ];
    return el("div", { class: "strip" }, el("div", { class: "bar" }, bars),
      el("p", { class: "facts" }, facts.map((fact) => el("span", {}, fact))));
  }

  origins() {
    const { origins } = this.view;
    const list = origins.map((origin, place) =>
      el("li", { class: `doc d${place % 6}` }, isolated(origin.id, { class: "id" }),
        el("span", { class: "soft" }, [origin.source, origin.lang, origin.template].filter(Boolean).map((word) => isolated(word)),
          say("tokens_range", number(origin.offset), number(origin.offset + origin.tokens - 1)))));
    return el("details", { class: "origins", open: origins.length <= 4 },
      el("summary", {}, say("documents"), " ", el("b", {}, String(origins.length))), el("ul", {}, list));
  }

  switchArrows() {
    allArrows = !allArrows;
    this.toggle.checked = this.sheet.allArrows = allArrows;
    this.sheet.drawArrows();
  }
}
