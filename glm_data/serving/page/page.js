// Type a text with blanks, watch them filled. Text goes into the page as text nodes only; nothing is loaded from elsewhere.

const WORDS = {
  en: {
    prompt: "A text with [MASK] where something is missing; [gMASK] at its end has it continued",
    blank: "Insert a blank", fill: "Fill", stop: "Stop", options: "How it is filled", temperature: "Temperature",
    seed: "Seed", length: "Tokens of an answer at most", parallel: "All blanks at once, none seeing the others' answers",
    result: "Filled", nothing: "Nothing yet.", hint: "The paler a piece, the surer the model was. Point at a piece to see what else it had in mind.",
    working: "Filling …", done: "Done.", stopped: "Stopped.", end: "(end)", gone: "The server does not answer; is it still running?",
    several: "several tokens", other: "中文", example: "The quick brown fox [MASK] over the lazy dog. Wisdom is better than [MASK].",
  },
  zh: {
    prompt: "在缺字处写 [MASK]；在文末写 [gMASK] 则续写",
    blank: "插入空格", fill: "填空", stop: "停止", options: "怎样填", temperature: "温度",
    seed: "种子", length: "每空最多词元数", parallel: "各空同时填，互不相见",
    result: "结果", nothing: "还没有。", hint: "底色越浅，模型越有把握。指着一段，可看它还想过什么。",
    working: "正在填 …", done: "填好了。", stopped: "已停止。", end: "（结束）", gone: "服务器没有回应；还在运行吗？",
    several: "多个词元", other: "English", example: "床前明月光，[MASK]地上霜。举头望明月，低头思[MASK]。",
  },
};

const at = (id) => document.getElementById(id);
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let running = null;

function say(key) { return WORDS[language][key]; }

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  at("language").textContent = say("other");
  const examples = Object.values(WORDS).map((words) => words.example);
  if (at("text").value === "" || examples.includes(at("text").value)) at("text").value = say("example");
}

function tell(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

// --- the result: the text with an element for each blank, into which pieces are put as they come

function layOut(text) {
  const parts = text.includes("[MASK]") ? text.split("[MASK]") : [text.replace(/\[gMASK\]$/, ""), ""];
  const blanks = [];
  const result = at("result");
  result.replaceChildren();
  result.classList.remove("empty");
  delete result.dataset.say;
  parts.forEach((part, number) => {
    if (number === parts.length - 1) { result.append(part); return; }
    const spaced = part.endsWith(" ") && text.includes("[MASK]");  // the space before a blank belongs to the answer
    result.append(spaced ? part.slice(0, -1) : part);
    const answer = document.createElement("span");
    answer.className = "answer waiting";
    result.append(answer);
    blanks.push({ answer, spaced });
  });
  return blanks;
}

function addPiece(blank, piece) {
  if (blank.spaced && !blank.answer.hasChildNodes() && !piece.text.startsWith(" ")) blank.answer.before(" ");
  const element = document.createElement("span");
  element.className = "piece";
  element.textContent = piece.text;
  element.tabIndex = 0;
  element.style.setProperty("--p", piece.probability.toFixed(4));
  element.setAttribute("aria-label", `${piece.text} ${percent(piece.probability)}`);
  for (const [event, act] of [["mouseenter", showTip], ["focus", showTip], ["mouseleave", hideTip], ["blur", hideTip]]) {
    element.addEventListener(event, () => act(element, piece));
  }
  blank.answer.append(element);
}

function percent(share) { return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`; }

function showTip(element, piece) {
  const tip = at("tip");
  const head = document.createElement("b");
  head.textContent = `${visible(piece.text)} ${percent(piece.probability)}${piece.alternatives ? "" : ` (${say("several")})`}`;
  tip.replaceChildren(head, ...(piece.alternatives ?? []).map(alternativeRow));
  tip.hidden = false;
  const box = element.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left) + scrollX}px`;
  const below = box.bottom + 6 + tip.offsetHeight <= innerHeight;
  tip.style.top = `${(below ? box.bottom + 6 : Math.max(0, box.top - 6 - tip.offsetHeight)) + scrollY}px`;
}

function alternativeRow(other) {
  const row = document.createElement("div");
  const name = document.createElement("span");
  const bar = document.createElement("meter");
  const share = document.createElement("span");
  name.textContent = other.text === "" ? say("end") : visible(other.text);
  bar.value = other.probability;
  share.textContent = percent(other.probability);
  row.append(name, bar, share);
  return row;
}

function visible(text) { return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ | $/g, "␣"); }

function hideTip() { at("tip").hidden = true; }

// --- asking

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const event of whole) yield JSON.parse(event.replace(/^data: /, ""));
  }
}

function asked() {
  return {
    text: at("text").value,
    stream: true,
    alternatives: 5,
    temperature: Number(at("temperature").value),
    seed: Math.trunc(Number(at("seed").value)),
    max_length: Math.trunc(Number(at("length").value)),
    parallel: at("parallel").checked,
  };
}

async function fill(event) {
  event.preventDefault();
  if (running) return;
  running = new AbortController();
  busy(true);
  tell(say("working"));
  try {
    const body = asked();
    const response = await fetch("infill", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: running.signal,
    });
    if (!response.ok) { tell((await response.json()).error.message, true); return; }
    await show(layOut(body.text), events(response));
  } catch (error) {
    if (error.name === "AbortError") tell(say("stopped")); else tell(say("gone"), true);
  } finally {
    running = null;
    busy(false);
    document.querySelectorAll(".waiting").forEach((element) => element.classList.remove("waiting"));
  }
}

async function show(blanks, parts) {
  for await (const part of parts) {
    if (part.error) { tell(part.error.message, true); return; }
    if (part.done) { tell(say("done")); at("hint").hidden = false; return; }
    addPiece(blanks[part.blank], part);
    blanks.slice(0, part.blank).forEach((before) => { if (!at("parallel").checked) before.answer.classList.remove("waiting"); });
  }
}

function busy(is) {
  at("fill").disabled = is;
  at("stop").hidden = !is;
}

function insertBlank() {
  const text = at("text");
  text.setRangeText("[MASK]", text.selectionStart, text.selectionEnd, "end");
  text.focus();
}

at("form").addEventListener("submit", fill);
at("stop").addEventListener("click", () => running?.abort());
at("blank").addEventListener("click", insertBlank);
at("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; translate(); });
at("temperature").addEventListener("input", () => { at("shown").textContent = at("temperature").value; });
at("text").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit(); });
translate();
fetch("health").then((answer) => answer.json()).then((health) => { at("model").textContent = health.model; }, () => tell(say("gone"), true));
