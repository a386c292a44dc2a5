// Counts the answers of each instance, which shows how the load is balanced.

import { bar, byId, count, el, keyed } from "./dom.js";

const counts = new Map();
let ready = [];

/** Counts an answer of an instance. */
export function countAnswer(instance) {
  counts.set(instance, (counts.get(instance) ?? 0) + 1);
  draw();
}

/** Sets the instances that are ready. They are listed even if they have sent no answer. */
export function setReadyInstances(instances) {
  ready = instances;
  draw();
}

byId("reset").addEventListener("click", () => {
  counts.clear();
  draw();
});

function draw() {
  const names = [...new Set([...ready, ...counts.keys()])].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const maximum = Math.max(1, ...counts.values());
  keyed(byId("instance-counts"), names, (name) => name,
    (name) => el("li", {}, el("span", { className: "mono" }, name), bar(0), el("span")),
    (row, name) => {
      const answers = counts.get(name) ?? 0;
      const isReady = ready.length === 0 || ready.includes(name);
      row.querySelector("i").style.setProperty("--part", `${(answers / maximum) * 100}%`);
      row.lastChild.textContent = count(answers, "answer", "answers") + (isReady ? "" : ", not ready");
    });
}
