// How to add a service: shown while there is none, and on request.

import { el } from "./dom.js";
import { copyButton } from "./parts.js";

/** The ways to add a service: title, explanation, commands. @type {[string, string, string][]} */
const WAYS = [
  ["Any program", "Waypost gives it a port, checks it and registers it.", "waypost run orders -- \\\n  uvicorn app:app --port {port}"],
  ["Several programs", "Writes a file with the services found in this folder, which you can edit.", "waypost init\nwaypost up"],
  ["A program that is already running", "It is registered for as long as this command runs.", "waypost register orders --hold \\\n  --port 4100 --check-http /health"],
];

/** @param {string} title @param {string} lead */
export function ways(title, lead) {
  return el(
    "div.hello",
    el("h1", title),
    el("p", lead),
    el("div.ways", ...WAYS.map(([name, what, commands]) =>
      el(
        "section.card.way",
        el("h2", name), el("p", what), el("pre", { tabindex: "0", "aria-label": `Commands: ${name}` }, commands),
        copyButton(commands.replace(/ \\\n +/g, " "), "Copy", `the commands of “${name}”`),
      ))),
  );
}

export class AddView {
  title = "Add a service";
  element = el("div", ways("Add a service", "In one of three ways. It appears in the list automatically."));
  /** @param {import("./app.js").App} _app */
  constructor(_app) {}
  show() {}
  update() {}
  tick() {}
  key() {
    return false;
  }
}
