// The list of keys.

import { ask } from "./actions.js";
import { el } from "./dom.js";

/** What the keys do; the second word is whether they need a stack. @type {[string[], string, boolean][]} */
const KEYS = [
  [["/"], "find a service, an instance or a command", false],
  [["j", "k"], "move through the services", false],
  [["o"], "open the service", false],
  [["Esc"], "close", false],
  [["r"], "restart the service", true],
  [["+", "-"], "one instance more or less", true],
  [["l"], "log of the service", true],
  [["e"], "in the logs: errors only", true],
  [["f"], "in the logs: follow", true],
  [["c"], "in the logs: clear the view", true],
  [["s"], "services", false],
  [["m"], "map", true],
];

/** The keys of one view, for its footer. @param {[string[], string][]} keys */
export const keyLine = (keys) =>
  el("p.keys", ...keys.map(([names, what]) => el("span", ...names.map((name) => el("kbd", name)), ` ${what}`)));

/** Shows all keys. @param {import("./types.d.ts").Sources} sources */
export function showKeys(sources) {
  const rows = KEYS.filter(([, , needsStack]) => !needsStack || sources.stack).map(([names, what]) =>
    el("li", el("span", ...names.map((name) => el("kbd", name))), what));
  ask({ title: "Keys", content: el("ul.all-keys", ...rows), no: "Close" });
}
