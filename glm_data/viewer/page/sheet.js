// The text of a row: pieces, their masks and spans, arrows between them, and what every token is.
//
// Text that looks alike is one element, a run, however many tokens it holds. Which of them the pointer is on is worked
// out from the letter below it, and its frame is drawn over the text: a row is some hundred elements and not thousands.

import { caretAt, el, isolated, number, svg } from "./dom.js";
import { say } from "./words.js";

const tip = document.getElementById("tip");
/** Of the window, covered by the page's header. */
const HEADER = 90;

export class Sheet {
  constructor(view, allArrows) {
    Object.assign(this, { view, allArrows });
    /** The run `{ node, place, tokens, texts }` at each place, none at a `<sop>`; `tokens` are those of a cell. */
    this.runAt = new Array(view.tokens.length);
    this.runOf = new Map();
    this.blanks = [];
    /** The place that is told of, that of the keyboard, and the blank that is chosen. */
    this.told = this.cursor = this.blank = -1;
    this.boxes = el("div", { "aria-hidden": "true" });
    this.arrows = svg("svg", { class: "arrows", "aria-hidden": "true" });
    this.node = el("div", { class: "sheet" }, view.pieces.map((piece, place) => this.piece(piece, place)), this.boxes, this.arrows);
    this.node.addEventListener("mousemove", (event) => this.point(event));
    this.node.addEventListener("mouseleave", () => this.leave());
    new ResizeObserver(() => this.redraw()).observe(this.node);
    this.keys = {
      n: () => this.step(1),
      p: () => this.step(-1),
      ArrowRight: () => this.move(1),
      ArrowLeft: () => this.move(-1),
      Escape: () => this.leave(),
    };
  }

  piece(piece, place) {
    const first = this.blanks.length;
    const numbers = new Map(piece.blanks.map((blank, index) => [blank.mask, index + 1]));
    const partA = el("div", { class: "text" }, piece.part_a.map((stretch) => this.stretch(stretch, numbers.get(stretch[0]))));
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
    const line = el("li", { "data-blank": place }, mark,
      el("span", { class: "text" }, blank.text.map((stretch) => this.stretch(stretch))),
      el("small", { class: "at" }, say("at_position", number(blank.position))));
    this.blanks.push({ line, mark, mask: blank.mask, kind: piece.kind, number: number_ });
    return line;
  }

  /** The runs of a stretch, one for each document that it is of; of a mask, with the number of its blank. */
  stretch([place, tokens, texts, style], blank) {
    const { origin_of: origins } = this.view;
    if (blank) return this.run(place, tokens, texts, `${style} m`, el("sub", {}, String(blank)));
    const nodes = [];
    for (let first = 0, next; first < texts.length; first = next) {
      const origin = origins[place + first];
      for (next = first + 1; next < texts.length && origins[place + next] === origin;) next += 1;
      nodes.push(this.run(place + first, tokens, texts.slice(first, next), origin < 0 ? style : `${style} d${origin % 6}`));
    }
    return nodes;
  }

  run(place, tokens, given, style, ...behind) {
    const texts = style.includes("line") ? given.map((text) => text.replaceAll("⏎", "⏎\n")) : given;
    const node = el("span", { class: `c ${style}` }, texts.join(""), ...behind);
    const run = { node, place, tokens, texts };
    this.runOf.set(node, run);
    this.runAt.fill(run, place, place + texts.length * tokens);
    return node;
  }

  // --- cells ---------------------------------------------------------------------------------------------------------

  /** Where the cell begins that holds the letter number `at` of a run. */
  placeIn({ place, tokens, texts }, at) {
    let cell = 0;
    for (let end = texts[0].length; end <= at && cell + 1 < texts.length;) end += texts[cell += 1].length;
    return place + cell * tokens;
  }

  /** Boxes of the window that the cell at `place` fills. */
  boxesOf(place) {
    const { node, place: first, tokens, texts } = this.runAt[place];
    if (node.lastChild !== node.firstChild) return [...node.getClientRects()];
    const cell = (place - first) / tokens;
    const from = texts.slice(0, cell).reduce((sum, text) => sum + text.length, 0);
    const range = document.createRange();
    range.setStart(node.firstChild, from);
    range.setEnd(node.firstChild, from + texts[cell].length);
    return [...range.getClientRects()];
  }

  /** The place of the cell at a point of the window; -1 where none is. */
  placeAt(target, x, y) {
    const below = this.runOf.get(target.closest(".c"));
    if (!below) return -1;
    const [node, at] = caretAt(x, y);
    const found = this.runOf.get(node?.parentElement);
    // A caret stands between letters, and at the edge of a run in the run beside it.
    const near = [...(found ? [[found, at], [found, at - 1]] : []), [below, 0], [below, below.node.firstChild.length - 1]];
    const places = near.map(([run, letter]) => this.placeIn(run, Math.max(0, letter)));
    const holds = (slack) => (box) => box.left - slack <= x && x <= box.right + slack && box.top <= y && y <= box.bottom;
    const within = (slack) => places.find((place) => this.boxesOf(place).some(holds(slack)));
    return within(0) ?? within(2) ?? -1;
  }

  point({ target, clientX, clientY }) {
    const place = this.placeAt(target, clientX, clientY);
    if (place >= 0 && place === this.told) return;
    if (place >= 0) this.tell(place);
    else this.hush();
    const line = target.closest("[data-blank]");
    const masked = this.blanks.findIndex((blank) => blank.mask === place);
    this.choose(masked < 0 && line ? Number(line.dataset.blank) : masked);
  }

  /** Show what the token at `place` is, beside it. */
  tell(place) {
    const { view } = this;
    const { tokens } = this.runAt[place];
    const ids = view.tokens.slice(place, place + tokens);
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
    this.told = place;
    this.frame();
  }

  /** Draw the frame around what is told of, and put the tip beside it. */
  frame() {
    const [boxes, sheet] = [this.boxesOf(this.told), this.node.getBoundingClientRect()];
    const { width, height } = tip.getBoundingClientRect();
    const [box] = boxes;
    const below = box.bottom + 8 + height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 12))}px`;
    tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - height - 8)}px`;
    const px = (value) => `${value}px`;
    this.boxes.replaceChildren(...boxes.map(({ left, top, width: wide, height: high }) =>
      el("i", { class: "box", style: { left: px(left - sheet.left), top: px(top - sheet.top), width: px(wide), height: px(high) } })));
  }

  hush() {
    tip.hidden = true;
    this.told = -1;
    this.boxes.replaceChildren();
  }

  leave() {
    this.hush();
    this.choose(-1);
  }

  move(by) {
    const { runAt } = this;
    const from = runAt[this.cursor];
    const sameCell = (place) => from?.tokens > 1 && runAt[place] === from;
    let next = this.cursor < 0 && by < 0 ? runAt.length - 1 : this.cursor + by;
    while (next >= 0 && next < runAt.length && (!runAt[next] || sameCell(next))) next += by;
    const run = runAt[next];
    if (!run) return;
    this.cursor = run.tokens > 1 ? run.place : next;
    const [box] = this.boxesOf(this.cursor);
    if (box.top < HEADER) scrollBy(0, box.top - HEADER);
    else if (box.bottom > innerHeight) scrollBy(0, box.bottom - innerHeight + 8);
    this.tell(this.cursor);
    this.choose(this.blanks.findIndex((blank) => blank.mask === this.cursor));
  }

  // --- blanks --------------------------------------------------------------------------------------------------------

  step(by) {
    const next = Math.min(this.blanks.length - 1, Math.max(0, this.blank + by));
    if (next < 0 || !this.blanks.length) return;
    this.choose(next);
    this.blanks[next].mark.scrollIntoView({ block: "center" });
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
    if (blank) this.runAt[blank.mask].node.classList.toggle("chosen", on);
  }

  redraw() {
    if (!this.node.isConnected) return;
    if (this.told >= 0) this.frame();
    this.drawArrows();
  }

  /** Arrows from spans to their masks: of all of them, or of the chosen one. All of a kind are one path. */
  drawArrows() {
    const chosen = this.blanks[this.blank];
    const wanted = this.allArrows ? this.blanks : chosen ? [chosen] : [];
    if (!wanted.length && !this.arrows.firstChild) return;
    const sheet = this.node.getBoundingClientRect();
    const lines = Map.groupBy(wanted, (blank) => (blank === chosen ? `${blank.kind} chosen` : blank.kind));
    this.arrows.replaceChildren(...[...lines].map(([style, blanks]) =>
      svg("path", { class: style, d: blanks.map((blank) => this.arrow(blank, sheet)).join("") })));
  }

  arrow(blank, sheet) {
    const from = blank.mark.getBoundingClientRect();
    const [to] = this.boxesOf(blank.mask);
    const [x1, y1] = [from.left - sheet.left - 3, from.top + from.height / 2 - sheet.top];
    const beside = to.right < from.left;
    const [x2, y2] = [(beside ? to.right : to.left + to.width / 2) - sheet.left + (beside ? 3 : 0),
      (beside ? to.top + to.height / 2 : to.bottom) - sheet.top];
    const bend = Math.max(24, Math.abs(x1 - x2) / 2.4);
    return `M${x1} ${y1} C${x1 - bend} ${y1} ${x2 + bend} ${y2} ${x2} ${y2} M${x2 + 7} ${y2 - 4} L${x2} ${y2} L${x2 + 7} ${y2 + 4}`;
  }
}
