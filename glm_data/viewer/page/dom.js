// Elements, requests and foreign text. Text enters the page as text nodes only; the server has made hidden
// characters visible before.

/** An element; `attributes` may hold `class`, `on` (listeners by event) and `style` (custom properties and the like). */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, item] of Object.entries(value)) node.style.setProperty(key, item);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Spans `[text, style]` of the server as nodes; behind the sign of a line end the line ends. */
export function painted(spans) {
  return spans.map(([text, style]) => {
    if (!style) return document.createTextNode(text);
    const node = el("span", { class: style }, text);
    return style.split(" ").includes("line") ? [node, "\n"] : node;
  });
}

/** Foreign text on one line, in its own direction. */
export const isolated = (text, attributes = {}) => el("bdi", attributes, text);

/** The text below a point of the window, and the number of its letter that a caret would stand at there. */
export function caretAt(x, y) {
  const caret = document.caretPositionFromPoint?.(x, y);
  if (caret) return [caret.offsetNode, caret.offset];
  const range = document.caretRangeFromPoint?.(x, y);
  return range ? [range.startContainer, range.startOffset] : [null, 0];
}

async function answer(response) {
  const value = await response.json();
  if (!response.ok) throw new Error(value.error.message);
  return value;
}

export async function read(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  return answer(await fetch(`/api/${path}?${new URLSearchParams(given)}`));
}

export async function give(path, value) {
  const headers = { "content-type": "application/json" };
  return answer(await fetch(`/api/${path}`, { method: "POST", headers, body: JSON.stringify(value) }));
}

/** `act`, once nothing has called it for `wait` milliseconds. */
export function settled(act, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}

export const address = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
