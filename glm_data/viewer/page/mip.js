// Templates on real rows: choose, change, see it rendered, save to the file that was named for it.

import { address, el, give, number, painted, read, settled } from "./dom.js";
import { say } from "./words.js";

const AT_ONCE = 3;
/** Changes that are not saved, by the template's id. */
const drafts = new Map();

export async function show({ main, rest, about, isCurrent }) {
  const key = about.datasets.includes(rest[0]) ? rest[0] : about.datasets[0];
  const found = await read("mip/data_set", { name: key });
  if (!isCurrent()) return null;
  const template = found.templates.find((item) => item.id === rest[1]) ?? found.templates[0];
  const page = new TemplatePage(main, about, found, template);
  await page.render();
  return page;
}

class TemplatePage {
  constructor(main, about, found, template) {
    Object.assign(this, { found, template });
    this.first = 0;
    this.turn = 0;
    this.changed = settled(() => this.render(), 250);
    const go = (key, id) => (location.hash = address("mip", "mip", key, ...(id ? [id] : [])));
    const sets = el("select", { "aria-label": say("data_set"), on: { change: () => go(sets.value) } }, about.datasets.map((key) => el("option", { value: key }, key)));
    sets.value = found.key;
    const names = el("select", { "aria-label": say("template"), on: { change: () => go(found.key, names.value) } },
      found.templates.map((item) => el("option", { value: item.id }, item.name)));
    names.value = template.id;
    const draft = drafts.get(template.id) ?? template;
    this.boxes = {
      name: el("input", { type: "text", value: draft.name }),
      jinja: el("textarea", { rows: 14, spellcheck: "false" }, draft.jinja),
      answer_choices: el("input", { type: "text", value: draft.answer_choices ?? "", spellcheck: "false" }),
    };
    for (const box of Object.values(this.boxes)) box.addEventListener("input", () => this.changed(drafts.set(template.id, this.edited())));
    this.status = el("p", { class: "note", role: "status" });
    this.range = el("span", { class: "soft" });
    this.results = el("div", { class: "results" });
    const save = found.changed
      ? el("button", { type: "button", class: "primary", on: { click: () => this.save() } }, say("save", found.changed))
      : el("span", { class: "soft" }, say("save_off"));
    const step = (by) => el("button", { type: "button", title: `${say(by > 0 ? "next" : "previous")} (${by > 0 ? "j" : "k"})`, on: { click: () => this.turnTo(by) } }, by > 0 ? "›" : "‹");
    main.replaceChildren(el("article", { class: "templates" },
      el("div", { class: "toolbar" }, el("label", { class: "group" }, say("data_set"), " ", sets), el("label", { class: "group" }, say("template"), " ", names),
        el("span", { class: "group" }, step(-1), this.range, step(1))),
      el("div", { class: "halves" },
        el("form", { class: "editor", on: { submit: (event) => event.preventDefault() } },
          el("label", {}, say("template_name"), this.boxes.name), el("label", {}, say("jinja"), this.boxes.jinja),
          el("label", {}, say("choices"), this.boxes.answer_choices),
          el("div", { class: "buttons" }, save, el("button", { type: "button", on: { click: () => this.revert() } }, say("revert"))), this.status,
          el("p", { class: "soft columns-of" }, found.columns.map((name) => el("code", {}, name)))),
        this.results)));
    this.keys = { j: () => this.turnTo(1), k: () => this.turnTo(-1) };
  }

  edited() {
    const { name, jinja, answer_choices } = this.boxes;
    return { ...this.template, name: name.value, jinja: jinja.value, answer_choices: answer_choices.value || null };
  }

  turnTo(by) {
    const next = this.first + by * AT_ONCE;
    if (next < 0 || next >= this.found.rows) return;
    this.first = next;
    this.render();
  }

  revert() {
    drafts.delete(this.template.id);
    for (const [name, box] of Object.entries(this.boxes)) box.value = this.template[name] ?? "";
    this.render();
  }

  async render() {
    const mine = ++this.turn;
    const rows = Array.from({ length: AT_ONCE }, (_, place) => this.first + place);
    this.range.textContent = say("rows_to", number(this.first), number(Math.min(this.first + AT_ONCE, this.found.rows) - 1), number(this.found.rows));
    try {
      const { rendered, refused } = await give("mip/render", { name: this.found.key, template: this.edited(), rows });
      if (mine !== this.turn) return;
      this.status.textContent = refused;
      this.status.classList.toggle("failed", Boolean(refused));
      if (!refused) this.results.replaceChildren(...rendered.map(result));
    } catch (error) {
      if (mine === this.turn) this.fail(error);
    }
  }

  fail(error) {
    this.status.textContent = error.message;
    this.status.classList.add("failed");
  }

  async save() {
    try {
      const { saved } = await give("mip/save", { name: this.found.key, template: this.edited() });
      this.template = this.edited();
      drafts.delete(this.template.id);
      this.status.classList.remove("failed");
      this.status.textContent = say("saved", saved);
    } catch (error) {
      this.fail(error);
    }
  }
}

function result(item) {
  const fields = el("details", {}, el("summary", {}, say("fields")), el("dl", { class: "fields" },
    item.fields.map((field) => [el("dt", {}, el("code", {}, field.name)), el("dd", { class: "text", dir: "auto" }, painted(field.value))])));
  const body = item.reason
    ? el("p", { class: "refused" }, say(`refused_${item.reason}`), item.detail && el("small", {}, ` ${item.detail}`))
    : [el("h4", {}, say("prompt")), el("div", { class: "text prompt", dir: "auto" }, painted(item.prompt)),
      el("h4", {}, say("target")), el("div", { class: "text target", dir: "auto" }, painted(item.target)),
      item.choices.length > 0 && el("p", { class: "soft" }, say("choices"), " ", item.choices.map((choice) => el("bdi", { class: "choice" }, painted(choice))))];
  return el("section", { class: "rendered" }, el("h3", {}, say("render_row", number(item.number))), body, fields);
}
