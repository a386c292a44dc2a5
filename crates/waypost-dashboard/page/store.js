// The state of this page. It receives the streams through the shared worker, or directly in browsers without shared
// workers, as on phones. Listeners are called once per frame.

import { Feed } from "./feed.js";
import { apply, emptyState } from "./state.js";

/**
 * @typedef {import("./types.d.ts").Sources} Sources
 * @typedef {import("./types.d.ts").Message} Message
 * @typedef {object} Changes What has changed since the last frame.
 * @property {boolean} all
 * @property {Set<string>} services names
 * @property {boolean} links
 * @property {boolean} second
 * @property {boolean} lines
 */

/** With more services, changes are collected for a while before they are drawn. */
const MANY = 100;
const LARGE_MS = 200;

/** The key of the registry's token in the session storage, which lasts until the tab is closed. */
const TOKEN_KEY = "waypost-token";

export class Store {
  state = emptyState();
  /** @type {Set<(changes: Changes) => void>} */
  #listeners = new Set();
  /** @type {Changes | null} */
  #changes = null;
  #wantsLogs = false;
  /** @type {(message: any) => void} */
  #send;

  /** @param {Sources} sources */
  constructor(sources) {
    this.sources = sources;
    this.#send = window.SharedWorker ? this.#connectShared() : this.#connectAlone();
    document.addEventListener("visibilitychange", () => this.#show(!document.hidden));
    window.addEventListener("pagehide", () => this.#show(false));
    window.addEventListener("pageshow", (event) => event.persisted && this.#show(true));
    this.#show(!document.hidden);
  }

  /** Calls `listener` once per frame with what has changed. @param {(changes: Changes) => void} listener */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  /** Sets whether the page shows log lines. @param {boolean} wanted */
  wantLogs(wanted) {
    if (this.#wantsLogs === wanted) return;
    this.#wantsLogs = wanted;
    this.#send({ type: "logs", wanted });
  }

  /** The token of the registry; empty if there is none. */
  get token() {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  }

  /** @param {string} token */
  setToken(token) {
    sessionStorage.setItem(TOKEN_KEY, token);
    this.#send({ type: "token", token });
  }

  /** Removes all log lines. */
  clearLines() {
    this.#receive({ type: "lines", lines: [], anew: true });
  }

  /** @param {boolean} visible */
  #show(visible) {
    const message = { sources: this.sources, base: document.baseURI, token: this.token, logs: this.#wantsLogs };
    this.#send(visible ? { type: "show", ...message } : { type: "hide" });
  }

  #connectShared() {
    const { port } = new SharedWorker(import.meta.url, { type: "module", name: document.baseURI });
    port.addEventListener("message", ({ data }) => this.#receive(data));
    port.start();
    return (/** @type {any} */ message) => port.postMessage(message);
  }

  #connectAlone() {
    const feed = new Feed(this.sources, document.baseURI, (message) => this.#receive(message));
    return (/** @type {any} */ message) => {
      if (message.type === "show") {
        if (message.token) feed.setToken(message.token);
        feed.open();
        feed.wantLogs(message.logs);
      } else if (message.type === "hide") feed.close();
      else if (message.type === "logs") feed.wantLogs(message.wanted);
      else if (message.type === "token") feed.setToken(message.token);
    };
  }

  /** @param {Message} message */
  #receive(message) {
    this.state = apply(this.state, message);
    if (!this.#changes) {
      this.#changes = { all: false, services: new Set(), links: false, second: false, lines: false };
      // With many services, several change in each frame.
      const isLarge = this.state.registry.size > MANY || this.state.services.size > MANY;
      if (isLarge) setTimeout(() => this.#publish(), LARGE_MS);
      else requestAnimationFrame(() => this.#publish());
    }
    const changes = this.#changes;
    if (message.type === "state" || message.type === "stack" || message.type === "registry") changes.all = true;
    else if (message.type === "registry-names") changes.all = true;
    else if (message.type === "link") changes.links = true;
    else if (message.type === "service" || message.type === "registry-service") changes.services.add(message.service.name);
    else if (message.type === "removed" || message.type === "registry-removed") changes.services.add(message.name);
    else if (message.type === "traffic" || message.type === "second") changes.second = true;
    else if (message.type === "lines") changes.lines = true;
  }

  #publish() {
    const changes = this.#changes;
    this.#changes = null;
    if (changes) for (const listener of this.#listeners) listener(changes);
  }
}
