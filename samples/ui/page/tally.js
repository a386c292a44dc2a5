// Who answered, and how often: what load balancing looks like from outside.

import { bar, byId, count, el, keyed } from "./dom.js";

const counts = new Map();
let live = [];

/** Counts an answer for an instance. */
export function answeredBy(instance) {
  counts.set(instance, (counts.get(instance) ?? 0) + 1);
  draw();
}

/** The instances that could answer, so that one which never does is seen too. */
export function candidates(instances) {
  live = instances;
  draw();
}

byId("reset").addEventListener("click", () => {
  counts.clear();
  draw();
});

function draw() {
  const names = [...new Set([...live, ...counts.keys()])].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const most = Math.max(1, ...counts.values());
  keyed(byId("tally"), names, (name) => name,
    (name) => el("li", {}, el("span", { className: "mono" }, name), bar(0), el("span")),
    (row, name) => {
      const answers = counts.get(name) ?? 0;
      const ready = live.length === 0 || live.includes(name);
      row.querySelector("i").style.setProperty("--part", `${(answers / most) * 100}%`);
      row.lastChild.textContent = count(answers, "answer", "answers") + (ready ? "" : ", not ready");
    });
}
