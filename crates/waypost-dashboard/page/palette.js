// The field at the top: finds services, instances, tags and commands.

import * as address from "./address.js";
import { attribute, byId, el } from "./dom.js";
import { icon, sign } from "./icons.js";

/** The number of results that are shown. */
const MAX_RESULTS = 9;

/** @typedef {{ words: string, note: string, level?: import("./types.d.ts").Level, run: () => void }} Result */

export class Palette {
  /** @type {Result[]} */
  #results = [];
  #selected = 0;

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    const what = app.sources.stack ? "Find or do anything" : "Find a service, instance or tag";
    this.input = /** @type {HTMLInputElement} */ (el("input", {
      type: "text", role: "combobox", placeholder: what, "aria-label": what, "aria-controls": "results", "aria-expanded": "false",
      "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false",
      oninput: () => this.#search(),
      onfocus: () => this.#search(),
      onblur: () => this.#close(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
    }));
    this.list = el("ul", { id: "results", role: "listbox", "aria-label": "Results", hidden: true });
    byId("find").append(icon("find"), this.input, el("kbd", { "aria-hidden": "true" }, "/"), this.list);
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  #close() {
    this.list.hidden = true;
    attribute(this.input, "aria-expanded", "false");
    attribute(this.input, "aria-activedescendant", null);
  }

  #search() {
    const query = this.input.value.trim().toLowerCase();
    this.#results = query ? this.#find(query).slice(0, MAX_RESULTS) : [];
    this.#selected = 0;
    this.#show();
  }

  /** @param {string} query @returns {Result[]} */
  #find(query) {
    const words = query.split(/\s+/);
    const matches = (/** @type {string} */ value) => words.every((word) => value.toLowerCase().includes(word));
    /** @type {Result[]} */
    const found = [];
    const open = (/** @type {string} */ name) => () => address.go(address.href(["services", name]));
    for (const row of this.app.sorted) {
      if (matches(row.name)) found.push({ words: row.name, note: row.word, level: row.level, run: open(row.name) });
    }
    for (const row of this.app.sorted) {
      for (const instance of row.instances) {
        if (instance.id !== row.name && matches(`${instance.id} ${instance.address}`)) {
          found.push({ words: instance.id, note: `instance of ${row.name} ${instance.address}`, level: instance.level, run: open(row.name) });
        }
      }
      for (const tag of row.tags) if (matches(tag)) found.push({ words: row.name, note: `tag ${tag}`, level: row.level, run: open(row.name) });
    }
    const { actions, sources } = this.app;
    if (sources.stack) {
      for (const row of this.app.sorted.filter((row) => row.canRestart)) {
        const commands = /** @type {[string, () => void][]} */ ([
          [`restart ${row.name}`, () => actions.restart(row.name)],
          [row.isStopped ? `start ${row.name}` : `stop ${row.name}`, () => (row.isStopped ? actions.start : actions.stop)(row.name)],
          [`log of ${row.name}`, () => address.go(address.href(["logs"], { service: row.name }))],
        ]);
        for (const [command, run] of commands) if (matches(command)) found.push({ words: command, note: "command", run });
      }
    }
    for (const [title, href] of Object.entries(sources.links)) {
      if (matches(title)) found.push({ words: title, note: "page", run: () => location.assign(new URL(href, document.baseURI)) });
    }
    if (this.app.sorted.length > 1) {
      found.push({ words: `Services with “${query}”`, note: "filter", run: () => address.go(address.href(["services"], { q: query })) });
    }
    return found;
  }

  #show() {
    this.list.hidden = !this.#results.length;
    attribute(this.input, "aria-expanded", String(!this.list.hidden));
    attribute(this.input, "aria-activedescendant", this.list.hidden ? null : `result-${this.#selected}`);
    this.list.replaceChildren(...this.#results.map(({ words, note, level, run }, index) =>
      el(
        "li",
        {
          id: `result-${index}`, role: "option", "aria-selected": String(index === this.#selected),
          // Before the field loses the focus.
          onmousedown: (/** @type {Event} */ event) => {
            event.preventDefault();
            this.#run(run);
          },
        },
        level && el(`span.sign.${level}`, sign(level)), el("b", words), el("span.muted", note),
      )));
  }

  /** @param {() => void} run */
  #run(run) {
    this.input.value = "";
    this.input.blur();
    run();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#results.length - 1;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      this.#selected = event.key === "ArrowDown" ? Math.min(this.#selected + 1, last) : Math.max(this.#selected - 1, 0);
      this.#show();
    } else if (event.key === "Enter" && this.#results[this.#selected]) this.#run(this.#results[this.#selected].run);
    else if (event.key === "Escape") {
      this.input.value = "";
      this.input.blur();
    } else return;
    event.preventDefault();
  }
}
