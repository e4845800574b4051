// Packed rows: part A with its masks, part B in its order, and what every token is.

import { address, el, isolated, number, read, svg } from "./dom.js";
import { say } from "./words.js";

const MEASURES = ["padding", "targets", "bytes", "repetition"];
const tip = document.getElementById("tip");
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
  page.drawArrows();
  for (const near of [number_ + 1, number_ - 1]) if (near >= 0 && near < thing.size) fetchRow(name, near, epoch).catch(() => {});
  return page;
}

class RowPage {
  constructor(name, view) {
    this.name = name;
    this.view = view;
    this.cells = new Map();
    this.masks = new Map();
    this.blanks = [];
    this.cursor = -1;
    this.blank = -1;
    this.note = el("span", { class: "note", role: "status" });
    this.arrows = svg("svg", { class: "arrows", "aria-hidden": "true" });
    this.sheet = el("div", { class: "sheet" }, view.pieces.map((piece, place) => this.piece(piece, place)), this.arrows);
    this.node = el("article", { class: "rows" }, this.toolbar(), this.strip(), this.origins(), this.sheet);
    this.sheet.addEventListener("mouseover", (event) => this.point(event.target));
    this.sheet.addEventListener("mouseleave", () => this.leave());
    new ResizeObserver(() => this.drawArrows()).observe(this.sheet);
    this.keys = {
      j: () => this.go(view.row + 1),
      k: () => this.go(view.row - 1),
      w: () => this.worst(1),
      W: () => this.worst(-1),
      e: () => this.go(view.row, view.epoch + 1),
      E: () => this.go(view.row, view.epoch - 1),
      g: () => this.input.select(),
      a: () => this.switchArrows(),
      n: () => this.step(1),
      p: () => this.step(-1),
      ArrowRight: () => this.move(1),
      ArrowLeft: () => this.move(-1),
      Escape: () => this.leave(),
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

  piece(piece, place) {
    const first = this.blanks.length;
    const numbers = new Map(piece.blanks.map((blank, index) => [blank.mask, index + 1]));
    const partA = el("div", { class: "text" }, piece.part_a.map((cell) => this.cell(cell, piece, numbers)));
    const partB = el("ol", { class: "blanks" }, piece.blanks.map((blank, index) => this.blankLine(blank, piece, index + 1, first + index)));
    const facts = [say(`kind_${piece.kind}`), say("places", number(piece.start), number(piece.end - 1)), say("spans", piece.blanks.length)];
    return el("section", { class: `piece ${piece.kind}` },
      el("h2", {}, say("piece", place + 1), el("span", { class: "facts" }, facts.map((fact) => el("span", {}, fact)))),
      el("div", { class: "parts" },
        el("div", { class: "part" }, el("h3", {}, say("part_a"), el("small", {}, say("part_a_tip"))), partA),
        el("div", { class: "part" }, el("h3", {}, say("part_b"), el("small", {}, say("part_b_tip"))), partB)));
  }

  blankLine(blank, piece, number_, place) {
    const mark = el("b", { class: "number" }, String(number_));
    const line = el("li", { "data-blank": place, id: `blank-${place}` }, mark,
      el("span", { class: "text" }, blank.cells.map((cell) => this.cell(cell, piece))),
      el("small", { class: "at" }, say("at_position", number(blank.position))));
    this.blanks.push({ line, mark, mask: blank.mask, kind: piece.kind, number: number_ });
    return line;
  }

  cell([place, tokens, text, style], piece, numbers) {
    const origin = this.view.origin_of[place];
    const node = el("span", { class: `c ${style} ${origin >= 0 ? `d${origin % 6}` : ""}`, "data-place": place }, text);
    const number_ = numbers?.get(place);
    if (number_) {
      node.append(el("sub", {}, String(number_)));
      node.classList.add("m");
      this.masks.set(place, node);
    }
    for (let at = place; at < place + tokens; at += 1) this.cells.set(at, { node, place, tokens });
    return style.split(" ").includes("line") ? [node, "\n"] : node;
  }

  point(target) {
    const cell = target.closest("[data-place]");
    const line = target.closest("[data-blank]");
    if (cell) this.tell(Number(cell.dataset.place));
    else tip.hidden = true;
    const place = cell ? this.blanks.findIndex((blank) => blank.mask === Number(cell.dataset.place)) : -1;
    this.choose(place >= 0 ? place : line ? Number(line.dataset.blank) : -1);
  }

  leave() {
    tip.hidden = true;
    this.cells.get(this.cursor)?.node.classList.remove("cursor");
    this.choose(-1);
  }

  move(by) {
    const places = [...this.cells.keys()].sort((one, other) => one - other);
    const at = places.indexOf(this.cursor);
    const before = this.cells.get(this.cursor);
    let next = at < 0 ? (by > 0 ? 0 : places.length - 1) : at + by;
    while (before && this.cells.get(places[next])?.node === before.node) next += by;
    if (next < 0 || next >= places.length) return;
    before?.node.classList.remove("cursor");
    this.cursor = places[next];
    const { node } = this.cells.get(this.cursor);
    node.classList.add("cursor");
    node.scrollIntoView({ block: "nearest" });
    this.tell(this.cells.get(this.cursor).place);
    this.choose(this.blanks.findIndex((blank) => blank.mask === this.cursor));
  }

  step(by) {
    const next = Math.min(this.blanks.length - 1, Math.max(0, this.blank + by));
    if (next < 0 || !this.blanks.length) return;
    this.choose(next);
    this.blanks[next].mark.scrollIntoView({ block: "center" });
  }

  /** Show what the token at `place` is, beside it. */
  tell(place) {
    const { view } = this;
    const { node, tokens } = this.cells.get(place);
    const places = Array.from({ length: tokens }, (_, index) => place + index);
    const ids = places.map((at) => view.tokens[at]);
    const origin = view.origins[view.origin_of[place]];
    const hidden = this.blanks.find((blank) => blank.mask === place);
    const wanted = view.wanted[place];
    const lines = [
      [say("tip_id"), ids.map((id) => number(id)).join(" ")],
      [say("tip_piece"), ids.map((id) => view.names[id]).join(" ")],
      [say("tip_place"), number(place)],
      [say("tip_position"), number(view.positions[place])],
      wanted >= 0 ? [say("tip_target"), number(wanted)] : null,
      origin ? [say("tip_document"), origin.id] : null,
      origin ? [say("tip_source"), [origin.source, origin.lang, origin.template].filter(Boolean).join(" · ")] : null,
      origin ? [say("tip_token"), number(view.offset_of[place])] : null,
    ].filter(Boolean);
    tip.replaceChildren(
      hidden ? el("p", {}, say("tip_mask", hidden.number)) : "",
      el("dl", {}, lines.map(([name, value]) => [el("dt", {}, name), el("dd", {}, isolated(value))])));
    tip.hidden = false;
    const box = node.getClientRects()[0];
    const { width, height } = tip.getBoundingClientRect();
    const below = box.bottom + 8 + height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 12))}px`;
    tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - height - 8)}px`;
  }

  choose(place) {
    if (place === this.blank) return;
    this.mark(this.blank, false);
    this.blank = place;
    this.mark(place, true);
    this.drawArrows();
  }

  mark(place, on) {
    const blank = this.blanks[place];
    blank?.line.classList.toggle("chosen", on);
    if (blank) this.masks.get(blank.mask)?.classList.toggle("chosen", on);
  }

  switchArrows() {
    allArrows = !allArrows;
    this.toggle.checked = allArrows;
    this.drawArrows();
  }

  /** Arrows from spans to their masks: of all of them, or of the chosen one. */
  drawArrows() {
    if (!this.sheet.isConnected) return;
    const wanted = this.blanks.map((_, place) => place).filter((place) => allArrows || place === this.blank);
    const frame = this.sheet.getBoundingClientRect();
    const paths = wanted.map((place) => this.arrow(this.blanks[place], frame, place === this.blank));
    this.arrows.replaceChildren(...paths.flat());
  }

  arrow(blank, frame, chosen) {
    const from = blank.mark.getBoundingClientRect();
    const to = this.masks.get(blank.mask).getClientRects()[0];
    const [x1, y1] = [from.left - frame.left - 3, from.top + from.height / 2 - frame.top];
    const beside = to.right < from.left;
    const [x2, y2] = [(beside ? to.right : to.left + to.width / 2) - frame.left + (beside ? 3 : 0),
      (beside ? to.top + to.height / 2 : to.bottom) - frame.top];
    const bend = Math.max(24, Math.abs(x1 - x2) / 2.4);
    const curve = `M${x1} ${y1} C${x1 - bend} ${y1} ${x2 + bend} ${y2} ${x2} ${y2}`;
    const style = `${blank.kind}${chosen ? " chosen" : ""}`;
    const head = `M${x2 + 7} ${y2 - 4} L${x2} ${y2} L${x2 + 7} ${y2 + 4}`;
    return [svg("path", { d: curve, class: style }), svg("path", { d: head, class: style })];
  }
}
