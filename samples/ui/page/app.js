// The form: runs the chosen model on a text, and shows the result and the instance that sent it.

import { renderPart, renderResult } from "./answers.js";
import { countAnswer } from "./counts.js";
import { byId, el, setText } from "./dom.js";
import { showServices } from "./services.js";
import { events } from "./sse.js";

/** The number of requests that "Send 20 requests" sends, and how many are in flight at once. */
const BURST = 20;
const CONCURRENCY = 4;

const form = byId("form");
const input = byId("input");
let models = [];
/** Aborts the current action; null if there is none. */
let running = null;

// === Models ===

let retry = null;

async function loadModels() {
  clearTimeout(retry);
  try {
    const response = await fetch("api/models");
    if (!response.ok) throw await problemOf(response);
    const { models: latest } = await response.json();
    // Drawing replaces the elements, including one that is being clicked.
    if (JSON.stringify(latest) === JSON.stringify(models)) return;
    models = latest;
    drawModels();
  } catch (problem) {
    if (!models.length) byId("models").replaceChildren(el("p", { className: "muted" }, `No models yet: ${problem.detail ?? problem.message}`));
    retry = setTimeout(loadModels, 3000);
  }
}

function drawModels() {
  const usable = (model) => model.status === "available";
  const focused = document.activeElement?.name === "model" ? document.activeElement.value : null;
  const wanted = chosen()?.id;
  const first = models.find((model) => model.id === wanted && usable(model)) ?? models.find(usable);
  byId("models").replaceChildren(...models.map((model) =>
    el("label", { className: "model" },
      el("input", { type: "radio", name: "model", value: model.id, checked: model === first, disabled: !usable(model) }),
      el("b", {}, model.name),
      el("small", {}, usable(model) ? model.description : `Unavailable: ${model.reason}`),
      model.provider === "upstream" ? el("small", {}, `at ${model.source}`) : null)));
  if (focused) form.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
  if (!input.value && first) input.value = first.example;
  showLength();
}

const chosen = () => models.find((model) => model.id === new FormData(form).get("model"));

// === Text ===

/** Whether the text is an unchanged example, which may be replaced with that of another model. */
const isExample = () => models.some((model) => model.example === input.value);

function showLength() {
  const limit = chosen()?.max_characters ?? 0;
  const length = [...input.value].length;
  const over = length > limit && limit > 0;
  byId("count").toggleAttribute("data-over", over);
  byId("count").textContent = `${length.toLocaleString("en")} of ${limit.toLocaleString("en")} characters${over ? ": too long" : ""}`;
}

input.addEventListener("input", showLength);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
form.addEventListener("change", (event) => {
  if (event.target.name === "model" && (isExample() || !input.value)) input.value = chosen().example;
  showLength();
});
byId("example").addEventListener("click", () => {
  if (chosen()) input.value = chosen().example;
  showLength();
  input.focus();
});

// === One request ===

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const model = chosen();
  if (!model || running) return;
  runAction(async (signal) => {
    const started = performance.now();
    setText(byId("answered"), "");
    byId("answer").replaceChildren(el("p", { className: "muted" }, "Waiting for the answer…"));
    const request = byId("stream").checked ? askStreaming : ask;
    const answer = await request(model, input.value, signal);
    const elapsed = Math.round(performance.now() - started);
    byId("answered").replaceChildren(
      "Answered by ", el("span", { className: "who" }, answer.served_by),
      ...(answer.gateway ? [" through the gateway at ", el("span", { className: "who" }, answer.gateway)] : []),
      ` in ${elapsed} ms; the model took ${answer.elapsed_ms.toFixed(1)} ms`);
  });
});

byId("stop").addEventListener("click", () => running?.abort());

/** Runs an action that can be stopped, and shows its error. Only one action runs at a time. */
async function runAction(action) {
  running = new AbortController();
  byId("problem").replaceChildren();
  setBusy(true);
  try {
    await action(running.signal);
  } catch (problem) {
    if (problem.name === "AbortError") {
      setText(byId("answered"), "Stopped.");
    } else {
      const title = problem.title ?? "No answer";
      byId("problem").append(el("div", { className: "problem" }, el("strong", {}, title), el("p", {}, problem.detail ?? problem.message)));
      if (byId("answer").querySelector(":scope > .muted")) byId("answer").replaceChildren();
      // The list of models may have changed.
      loadModels();
    }
    byId("answer").querySelector("[data-writing]")?.removeAttribute("data-writing");
  } finally {
    running = null;
    setBusy(false);
  }
}

function setBusy(busy) {
  byId("send").disabled = busy;
  byId("burst").disabled = busy;
  byId("stop").hidden = !busy;
}

async function ask(model, text, signal) {
  const { response, answer } = await post("api/inference", model, text, signal);
  countAnswer(answer.served_by);
  byId("answer").replaceChildren(renderResult(answer.task, answer.output));
  return { ...answer, gateway: gatewayOf(response) };
}

async function askStreaming(model, text, signal) {
  const response = await send("api/inference/stream", model, text, signal);
  const parts = el("ul", { className: "parts", ariaLabel: "Sentence by sentence" });
  const written = el("p", { className: "written", data: { writing: "" } });
  let start = null;
  for await (const { name, data } of events(response)) {
    if (name === "start") {
      start = data;
      countAnswer(data.served_by);
      byId("answer").replaceChildren(data.task === "text-generation" ? written : parts);
    } else if (name === "part") {
      parts.append(renderPart(start.task, data.input, data.output));
    } else if (name === "token") {
      written.append(data.text);
    } else if (name === "error") {
      throw data;
    } else if (name === "done") {
      byId("answer").replaceChildren(renderResult(start.task, data.output), parts);
      return { ...start, ...data, gateway: gatewayOf(response) };
    }
  }
  throw new Error("The answer ended early.");
}

// === Twenty requests ===

byId("burst").addEventListener("click", () => {
  const model = chosen();
  if (!model || running) return;
  runAction(async (signal) => {
    const status = byId("burst-status");
    let sent = 0, answered = 0, failed = 0, lastError = null;
    const worker = async () => {
      while (sent < BURST && !signal.aborted) {
        sent += 1;
        try {
          const { answer } = await post("api/inference", model, input.value, signal);
          answered += 1;
          countAnswer(answer.served_by);
        } catch (problem) {
          if (problem.name === "AbortError") throw problem;
          failed += 1;
          lastError = problem;
        }
        status.textContent = `${answered} of ${BURST} answered${failed ? `, ${failed} failed` : ""}`;
      }
    };
    await Promise.all(Array.from({ length: CONCURRENCY }, worker));
    if (lastError) throw { title: `${failed} of ${BURST} requests failed`, detail: lastError.detail ?? lastError.message };
  });
});

// === HTTP ===

async function post(path, model, text, signal) {
  const response = await send(path, model, text, signal);
  return { response, answer: await response.json() };
}

async function send(path, model, text, signal) {
  const body = JSON.stringify({ model: model.id, input: text });
  const response = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body, signal });
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** The error of a response: its problem details (RFC 9457), or else the status and the start of the body. */
async function problemOf(response) {
  const text = await response.text();
  try {
    const problem = JSON.parse(text);
    if (problem.detail || problem.title) return problem;
  } catch {
    // Not JSON.
  }
  return { title: "No answer", detail: `${response.status} ${response.statusText} ${text.slice(0, 200)}`.trim() };
}

const gatewayOf = (response) => response.headers.get("x-gateway");

loadModels();
showServices(loadModels);
