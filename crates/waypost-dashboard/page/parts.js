// Small parts that several views show.

import { copy } from "./actions.js";
import { setQuery } from "./address.js";
import { el, hiddenText, text } from "./dom.js";
import { duration, exact } from "./format.js";
import { icon, sign } from "./icons.js";

/** A sign and what it means. @param {import("./types.d.ts").Level} level @param {...import("./dom.js").Child} words */
export const status = (level, ...words) => el(`span.st.${level}`, sign(level), ...words);

/** A link that opens another page. @param {string} href @param {string} words @param {string} [hidden] for screen readers */
export const external = (href, words, hidden = "") =>
  el("a.addr", { href, target: "_blank", rel: "noreferrer" }, words, el("span", { "aria-hidden": "true" }, " ↗"), hiddenText(hidden));

/** A button that copies a command. @param {string} command @param {string} words @param {string} what is copied, for screen readers */
export const copyButton = (command, words, what) =>
  el("button.btn.small-btn", { title: command, onclick: () => copy(command) }, icon("copy"), words, hiddenText(` ${what}`));

/** How long something has been so; `update` keeps it current. @param {number} since @param {string} before */
export const lasting = (since, before) =>
  el("span", { title: exact(since), "data-since": String(since), "data-before": before }, before + duration(Date.now() - since));

/** Updates the durations inside of an element. @param {Element} element @param {number} now */
export function update(element, now) {
  for (const { dataset, firstChild } of /** @type {NodeListOf<HTMLElement>} */ (element.querySelectorAll("[data-since]"))) {
    const ago = now - Number(dataset.since);
    // Older ones needn't be updated every second.
    if (firstChild && (ago < 60_000 || Math.floor(now / 1000) % 5 === 0)) text(firstChild, dataset.before + duration(ago));
  }
}

/** A field whose text is `q` in the address. @param {string} words */
export function searchField(words) {
  let typing = 0;
  const input = /** @type {HTMLInputElement} */ (el("input", {
    type: "search", placeholder: words, "aria-label": words, spellcheck: "false", autocomplete: "off",
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => setQuery({ q: input.value.trim() || null }), 150);
    },
  }));
  return input;
}
