// Rules of a filter: the histogram of each signal, thresholds that move, and the documents at the border.

import { address, el, isolated, number, painted, percent, read, settled, svg } from "./dom.js";
import { language, say } from "./words.js";

const opened = new Map();
const [WIDTH, HEIGHT, LEFT, FOOT] = [900, 240, 8, 26];
const SAMPLES = 16;

export async function show({ main, name, rest, isCurrent }) {
  if (!opened.has(name)) opened.set(name, await read("filter/rules", { name }));
  const found = opened.get(name);
  if (!isCurrent()) return null;
  const rules = found.rules;
  const strongest = rules.reduce((best, item, place) => (item.alone > rules[best].alone ? place : best), 0);
  const wantedRule = rules.findIndex((item) => item.rule.name === rest[0]);
  const place = wantedRule < 0 ? strongest : wantedRule;
  const go = (wanted) => {
    if (rules[wanted]) location.hash = address("filter", name, rules[wanted].rule.name);
  };
  const list = el("ol", { class: "list" }, rules.map((item, index) => line(item, index === place, found, name)));
  const detail = el("section", { class: "detail" });
  main.replaceChildren(el("article", { class: "split" },
    el("aside", {}, el("h2", {}, say("documents_kept", number(found.kept), number(found.documents))),
      el("h3", {}, say("rules"), el("small", {}, say("rule_alone"))), list), detail));
  list.children[place]?.scrollIntoView({ block: "nearest" });
  if (rules[place]) await new RulePage(name, rules[place], found, detail).open();
  return { keys: { j: () => go(place + 1), k: () => go(place - 1) } };
}

function line(item, current, found, name) {
  return el("li", {}, el("a", { href: address("filter", name, item.rule.name), "aria-current": current && "true" },
    el("b", {}, number(item.alone)), el("span", {}, named(item), el("small", {}, bounds(item.rule)))));
}

const meaning = (item) => (language() === "zh" ? item.chinese[1] : item.meaning);

/** The name that profiles know a rule by; in Chinese with a word for it. */
function named(item) {
  const word = language() === "zh" && item.chinese[0];
  return [isolated(item.rule.name), word && el("span", { class: "soft" }, ` ${word}`)];
}

function bounds(rule) {
  const low = rule.min === null ? "" : `${number(rule.min, 4)} ≤ `;
  const high = rule.max === null ? "" : ` ≤ ${number(rule.max, 4)}`;
  return `${low}${rule.signal}${high}`;
}

class RulePage {
  constructor(name, item, found, node) {
    Object.assign(this, { name, item, found, node, rule: item.rule });
    this.min = this.rule.min;
    this.max = this.rule.max;
    this.turn = 0;
    this.look = settled(() => this.ask(SAMPLES), 220);
  }

  async open() {
    this.bars = await read("filter/bars", { name: this.name, rule: this.rule.name });
    this.chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "histogram", role: "img", "aria-label": meaning(this.item) });
    this.count = el("b", {});
    this.was = el("span", { class: "soft" });
    this.stay = el("span", { class: "soft" });
    this.samples = el("ol", { class: "samples" });
    this.inputs = ["min", "max"].filter((side) => this.rule[side] !== null).map((side) => this.slider(side));
    const languages = this.rule.languages.length ? say("holds_for", this.rule.languages.join(", ")) : "";
    this.node.replaceChildren(
      el("h2", {}, named(this.item), el("span", { class: "soft" }, languages)),
      el("p", { class: "soft" }, el("code", {}, this.rule.signal), " ", meaning(this.item)),
      el("p", { class: "verdict" }, this.count, el("span", {}, say("would_go")), this.was, this.stay),
      this.chart, el("p", { class: "legend" }, el("i", { class: "stays" }), say("stays"), el("i", { class: "goes" }), say("goes"),
        el("i", { class: "others" }), say("all_documents")),
      el("div", { class: "sliders" }, this.inputs, el("button", { type: "button", on: { click: () => this.reset() } }, say("reset"))),
      el("h3", {}, say("border")), this.samples);
    this.drag();
    this.draw();
    await this.ask(SAMPLES);
  }

  slider(side) {
    const [low, high] = [this.bars.edges[0], this.bars.edges.at(-1)];
    const slide = el("input", { type: "range", min: low, max: high, step: (high - low) / 1000, value: this[side], "aria-label": say(side === "min" ? "least" : "most") });
    const exact = el("input", { type: "number", step: "any", value: this[side], "aria-label": say(side === "min" ? "least" : "most") });
    slide.addEventListener("input", () => this.set(side, Number(slide.value)));
    exact.addEventListener("change", () => exact.value !== "" && this.set(side, Number(exact.value)));
    return el("label", { "data-side": side }, say(side === "min" ? "least" : "most"), slide, exact);
  }

  set(side, value) {
    this[side] = Number(value.toPrecision(4));
    const [slide, exact] = this.inputs.find((input) => input.dataset.side === side).querySelectorAll("input");
    slide.value = this[side];
    exact.value = this[side];
    this.draw();
    this.ask(0);
    this.look();
  }

  reset() {
    for (const side of ["min", "max"]) if (this.rule[side] !== null) this.set(side, this.rule[side]);
  }

  async ask(samples) {
    const mine = ++this.turn;
    const found = await read("filter/move", { name: this.name, rule: this.rule.name, min: this.min, max: this.max, samples });
    if (mine !== this.turn) return;
    this.count.textContent = number(found.gone);
    this.was.textContent = say("was", number(found.before));
    this.stay.textContent = say("would_stay", number(found.kept), number(this.found.documents));
    this.stay.title = percent(found.kept, this.found.documents);
    if (!samples) return;
    this.samples.replaceChildren(...found.samples.map((item) =>
      el("li", { class: item.kept ? "stays" : "goes" }, el("span", { class: `tag ${item.kept ? "good" : "bad"}` }, say(item.kept ? "stays" : "goes")),
        el("span", { class: "figure" }, number(item.value, 4)), el("div", {}, isolated(item.id, { class: "id" }),
          el("div", { class: "text", dir: "auto" }, painted(item.excerpt))))));
  }

  x(value) {
    const [low, high] = [this.bars.edges[0], this.bars.edges.at(-1)];
    return LEFT + ((WIDTH - 2 * LEFT) * (Math.min(high, Math.max(low, value)) - low)) / (high - low);
  }

  /** Bars by the square root of their counts, so that the rare ones around a threshold are seen. */
  draw() {
    const { edges, documents, alone } = this.bars;
    const most = Math.sqrt(Math.max(...documents, 1));
    const height = (count) => ((HEIGHT - FOOT - 8) * Math.sqrt(count)) / most;
    const bar = (place, count, style) => svg("rect", { x: this.x(edges[place]) + 0.5, width: Math.max(1, this.x(edges[place + 1]) - this.x(edges[place]) - 1),
      y: HEIGHT - FOOT - height(count), height: height(count), class: style });
    const goes = (value) => (this.min !== null && value < this.min) || (this.max !== null && value > this.max);
    const nodes = documents.flatMap((count, place) => {
      const middle = (edges[place] + edges[place + 1]) / 2;
      return [count && bar(place, count, "others"), alone[place] && bar(place, alone[place], goes(middle) ? "goes" : "stays")].filter(Boolean);
    });
    const ticks = [0, 1, 2, 3, 4, 5].map((part) => edges[0] + (part * (edges.at(-1) - edges[0])) / 5);
    const labels = ticks.map((value, part) => svg("text", { x: this.x(value), y: HEIGHT - 6, "text-anchor": part === 0 ? "start" : part === 5 ? "end" : "middle" }, number(value)));
    const lines = ["min", "max"].filter((side) => this[side] !== null).flatMap((side) => {
      const x = this.x(this[side]);
      return [svg("line", { x1: x, x2: x, y1: 0, y2: HEIGHT - FOOT, class: "bound" }), svg("rect", { x: x - 5, y: 0, width: 10, height: 18, rx: 3, class: "grip" })];
    });
    this.chart.replaceChildren(...nodes, svg("line", { x1: LEFT, x2: WIDTH - LEFT, y1: HEIGHT - FOOT, y2: HEIGHT - FOOT, class: "axis" }), ...labels, ...lines);
  }

  /** The nearest threshold follows the pointer. */
  drag() {
    const [low, high] = [this.bars.edges[0], this.bars.edges.at(-1)];
    const sides = this.inputs.map((input) => input.dataset.side);
    const value = (event) => {
      const box = this.chart.getBoundingClientRect();
      const share = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - 2 * LEFT);
      return low + Math.min(1, Math.max(0, share)) * (high - low);
    };
    this.chart.addEventListener("pointerdown", (event) => {
      const at = value(event);
      const side = sides.reduce((best, each) => (Math.abs(this[each] - at) < Math.abs(this[best] - at) ? each : best), sides[0]);
      const follow = (moved) => this.set(side, value(moved));
      this.chart.setPointerCapture(event.pointerId);
      this.chart.addEventListener("pointermove", follow);
      this.chart.addEventListener("pointerup", () => this.chart.removeEventListener("pointermove", follow), { once: true });
      follow(event);
    });
  }
}
