// Asking a model: choose, write, send, and see who answered.

import * as answers from "./answers.js";
import { byId, el, say } from "./dom.js";
import { follow } from "./live.js";
import { events } from "./sse.js";
import { answeredBy } from "./tally.js";

/** Requests of "Send 20 requests", and how many of them are under way at once. */
const BURST = 20;
const AT_ONCE = 4;

const form = byId("form");
const input = byId("input");
let models = [];
/** Stops what is under way; null while nothing is. */
let running = null;

// === The models ===

let retry = null;

async function loadModels() {
  clearTimeout(retry);
  try {
    const response = await fetch("api/models");
    if (!response.ok) throw await problemOf(response);
    models = (await response.json()).models;
    drawModels();
  } catch (problem) {
    if (!models.length) byId("models").replaceChildren(el("p", { className: "quiet" }, `No models yet: ${problem.detail ?? problem.message}`));
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
  measure();
}

const chosen = () => models.find((model) => model.id === new FormData(form).get("model"));

// === The text ===

/** The example that stands in the field, if it does: another model's may then replace it. */
const isExample = () => models.some((model) => model.example === input.value);

function measure() {
  const limit = chosen()?.max_characters ?? 0;
  const length = [...input.value].length;
  const over = length > limit && limit > 0;
  byId("count").toggleAttribute("data-over", over);
  byId("count").textContent = `${length.toLocaleString("en")} of ${limit.toLocaleString("en")} characters${over ? ": too long" : ""}`;
}

input.addEventListener("input", measure);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
form.addEventListener("change", (event) => {
  if (event.target.name === "model" && (isExample() || !input.value)) input.value = chosen().example;
  measure();
});
byId("example").addEventListener("click", () => {
  if (chosen()) input.value = chosen().example;
  measure();
  input.focus();
});

// === One question ===

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const model = chosen();
  if (!model || running) return;
  attempt(async (signal) => {
    const started = performance.now();
    say(byId("answered"), "");
    byId("answer").replaceChildren(el("p", { className: "quiet" }, "Asking…"));
    const streamed = byId("stream").checked;
    const answer = await (streamed ? askStreaming : ask)(model, input.value, signal);
    const took = Math.round(performance.now() - started);
    byId("answered").replaceChildren(
      "Answered by ", el("span", { className: "who" }, answer.served_by),
      ...(answer.gateway ? [" through the gateway at ", el("span", { className: "who" }, answer.gateway)] : []),
      ` in ${took} ms, of which the model took ${answer.elapsed_ms.toFixed(1)} ms`);
  });
});

byId("stop").addEventListener("click", () => running?.abort());

/** Runs something that can be stopped and may go wrong, one at a time. */
async function attempt(work) {
  running = new AbortController();
  byId("problem").replaceChildren();
  busy(true);
  try {
    await work(running.signal);
  } catch (problem) {
    if (problem.name === "AbortError") {
      say(byId("answered"), "Stopped.");
    } else {
      const title = problem.title ?? "No answer";
      byId("problem").append(el("div", { className: "problem" }, el("strong", {}, title), el("p", {}, problem.detail ?? problem.message)));
      if (byId("answer").querySelector(":scope > .quiet")) byId("answer").replaceChildren();
      // A model may have become unavailable, or another have come.
      loadModels();
    }
    byId("answer").querySelector("[data-writing]")?.removeAttribute("data-writing");
  } finally {
    running = null;
    busy(false);
  }
}

function busy(is) {
  byId("send").disabled = is;
  byId("burst").disabled = is;
  byId("stop").hidden = !is;
}

async function ask(model, text, signal) {
  const { response, answer } = await post("api/inference", model, text, signal);
  answeredBy(answer.served_by);
  byId("answer").replaceChildren(answers.whole(answer.task, answer.output));
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
      answeredBy(data.served_by);
      byId("answer").replaceChildren(data.task === "text-generation" ? written : parts);
    } else if (name === "part") {
      parts.append(answers.part(start.task, data.input, data.output));
    } else if (name === "token") {
      written.append(data.text);
    } else if (name === "error") {
      throw data;
    } else if (name === "done") {
      byId("answer").replaceChildren(answers.whole(start.task, data.output), parts);
      return { ...start, ...data, gateway: gatewayOf(response) };
    }
  }
  throw new Error("The answer broke off before its end.");
}

// === Twenty questions ===

byId("burst").addEventListener("click", () => {
  const model = chosen();
  if (!model || running) return;
  attempt(async (signal) => {
    const status = byId("burst-status");
    let sent = 0, answered = 0, failed = 0, last = null;
    const worker = async () => {
      while (sent < BURST && !signal.aborted) {
        sent += 1;
        try {
          const { answer } = await post("api/inference", model, input.value, signal);
          answered += 1;
          answeredBy(answer.served_by);
        } catch (problem) {
          if (problem.name === "AbortError") throw problem;
          failed += 1;
          last = problem;
        }
        status.textContent = `${answered} of ${BURST} answered${failed ? `, ${failed} failed` : ""}`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    if (last) throw { title: `${failed} of ${BURST} requests failed`, detail: last.detail ?? last.message };
  });
});

// === Over the wire ===

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

/** What an answer that isn't good says of itself; problem details (RFC 9457) if it speaks them. */
async function problemOf(response) {
  const text = await response.text();
  try {
    const problem = JSON.parse(text);
    if (problem.detail || problem.title) return problem;
  } catch {
    // Not JSON: the status must do.
  }
  return { title: "No answer", detail: `${response.status} ${response.statusText} ${text.slice(0, 200)}`.trim() };
}

const gatewayOf = (response) => response.headers.get("x-gateway");

loadModels();
follow(loadModels);
