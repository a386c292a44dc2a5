// The actions of the page: start, stop, restart and scale services, and write to the registry.

import { byId, el } from "./dom.js";
import { problem } from "./sse.js";

/** The key of the session's token in the session storage. */
const TOKEN_KEY = "waypost-session";
/** How long a message is shown. */
const TOAST_MS = 6000;

/** Removes the token from the address that `waypost up` has printed, so that it isn't in screenshots or shared links. */
export function takeToken() {
  const url = new URL(location.href);
  const token = new URLSearchParams(url.hash.slice(1)).get("token") ?? url.searchParams.get("token");
  if (!token) return;
  sessionStorage.setItem(TOKEN_KEY, token);
  url.hash = "";
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
}

/** Shows a message for a while; with `undo` also a button. @param {string} message @param {"ok" | "bad"} [level] */
export function toast(message, level = "ok") {
  const shown = el(`p.toast.${level}`, message);
  byId("toasts").append(shown);
  setTimeout(() => shown.remove(), TOAST_MS);
}

export class Actions {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
  }

  /** @param {string} name */
  restart = (name) => this.#service(name, "restart", {}, `Restarting ${name}`);
  /** @param {string} name */
  stop = (name) => this.#service(name, "stop", {}, `Stopping ${name}`);
  /** @param {string} name */
  start = (name) => this.#service(name, "start", {}, `Starting ${name}`);
  /** @param {string} name @param {number} replicas */
  scale = (name, replicas) => this.#service(name, "scale", { replicas }, `Scaling ${name} to ${replicas}`);

  /** @param {string} name @param {string} verb @param {object} body @param {string} done */
  async #service(name, verb, body, done) {
    const url = `${this.store.sources.stack}services/${encodeURIComponent(name)}/${verb}`;
    try {
      const response = await this.request(url, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
      });
      if (response.ok) toast(done);
      else if (response.status === 403 && !sessionStorage.getItem(TOKEN_KEY)) {
        toast("This page is read-only. To make changes, open the link that “waypost up” has printed.", "bad");
      } else toast(`Can’t ${verb} ${name}: ${await problem(response)}`, "bad");
    } catch {
      toast(`Can’t ${verb} ${name}: no connection`, "bad");
    }
  }

  /** A request with the tokens of the session and of the registry. @param {string} url relative to the base @param {RequestInit} [options] */
  request(url, options = {}) {
    const headers = new Headers(options.headers);
    const session = sessionStorage.getItem(TOKEN_KEY);
    if (session) headers.set("x-waypost-token", session);
    if (this.store.token) headers.set("x-consul-token", this.store.token);
    return fetch(new URL(url, document.baseURI), { ...options, headers, cache: "no-store" });
  }

  /** JSON of a GET request; null if there is nothing at that address. @param {string} url */
  async json(url) {
    const response = await this.request(url);
    if (response.status === 404) return null;
    if (!response.ok) throw new Error(await problem(response));
    return response.json();
  }
}

/** Copies a text and shows a message. @param {string} value */
export async function copy(value) {
  try {
    await navigator.clipboard.writeText(value);
    toast("Copied");
  } catch {
    toast(`Can’t copy: ${value}`, "bad");
  }
}

/**
 * Shows a dialog with a question. Resolves with the value of the field, "" if there is no field, or null if cancelled.
 * @param {{ title: string, content?: string | Node, yes?: string, no?: string, field?: { label: string, value: string, type?: string, min?: string, max?: string } }} question
 * @returns {Promise<string | null>}
 */
export function ask({ title, content, yes, no = "Cancel", field }) {
  const { label = "", ...attributes } = field ?? {};
  const input = field && /** @type {HTMLInputElement} */ (el("input", { ...attributes, required: true, id: "ask-field", autocomplete: "off" }));
  const dialog = /** @type {HTMLDialogElement} */ (el("dialog.ask", { "aria-labelledby": "ask-title" }, el(
    "form", { method: "dialog" }, el("h2", { id: "ask-title" }, title), typeof content === "string" ? el("p.muted", content) : content, input && el("label", { for: "ask-field" }, label), input,
    el("div.acts", yes && el("button.btn.go", { value: "yes" }, yes), el("button.btn", { value: "no", formnovalidate: true }, no)),
  )));
  document.body.append(dialog);
  dialog.showModal();
  input?.select();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    dialog.remove();
    resolve(dialog.returnValue === "yes" ? (input?.value ?? "") : null);
  }));
}
