// The state of this page. It receives the streams through the shared worker, or directly in browsers without shared
// workers, as on phones. Listeners are called once per frame.

import { apply, emptyState } from "./state.js";
import { accept } from "./worker.js";

/**
 * @typedef {import("./types.d.ts").Sources} Sources
 * @typedef {import("./types.d.ts").Message} Message
 * @typedef {object} Changes What has changed since the last frame.
 * @property {boolean} all
 * @property {Set<string>} services names
 * @property {boolean} streams
 * @property {boolean} second
 * @property {boolean} lines
 */

/** With more services, changes are collected for a while before they are drawn. */
const MANY = 100;
const LARGE_MS = 200;

/** The key of the registry's token in the session storage, which lasts until the tab is closed. */
const REGISTRY_TOKEN_KEY = "waypost-token";

export class Store {
  state = emptyState();
  /** @type {Set<(changes: Changes) => void>} */
  #listeners = new Set();
  /** @type {Changes | null} */
  #changes = null;
  #wantsLogs = false;

  /** @param {Sources} sources */
  constructor(sources) {
    this.sources = sources;
    this.port = connect();
    this.port.addEventListener("message", ({ data }) => this.#receive(data));
    this.port.start();
    document.addEventListener("visibilitychange", () => this.#show());
    window.addEventListener("pagehide", () => this.#show(true));
    window.addEventListener("pageshow", (event) => event.persisted && this.#show());
    this.#show();
  }

  /** Calls `listener` once per frame with what has changed. @param {(changes: Changes) => void} listener */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  /** Sets whether the page shows log lines. @param {boolean} wanted */
  wantLogs(wanted) {
    if (this.#wantsLogs === wanted) return;
    this.#wantsLogs = wanted;
    this.#show();
  }

  /** The token of the registry; empty if there is none. */
  get token() {
    return sessionStorage.getItem(REGISTRY_TOKEN_KEY) ?? "";
  }

  /** @param {string} token */
  setToken(token) {
    sessionStorage.setItem(REGISTRY_TOKEN_KEY, token);
    this.#show();
  }

  /** Says what the page needs. */
  #show(isHidden = document.hidden) {
    const { sources, token } = this;
    this.port.postMessage(isHidden ? { type: "hide" } : { type: "show", sources, base: document.baseURI, token, logs: this.#wantsLogs });
  }

  /** @param {Message} message */
  #receive(message) {
    this.state = apply(this.state, message);
    if (!this.#changes) {
      this.#changes = { all: false, services: new Set(), streams: false, second: false, lines: false };
      // With many services, several change in each frame.
      const isLarge = this.state.registry.size > MANY || this.state.services.size > MANY;
      if (isLarge) setTimeout(() => this.#publish(), LARGE_MS);
      else requestAnimationFrame(() => this.#publish());
    }
    const changes = this.#changes;
    const { source, name, data } = message;
    if (name === "stream") changes.streams = true;
    else if (name === "service" || name === "removed") changes.services.add(data.name);
    else if (source === "traffic" && name !== "routes") changes.second = true;
    else if (source === "logs") changes.lines = true;
    else changes.all = true;
  }

  #publish() {
    const changes = this.#changes;
    this.#changes = null;
    if (changes) for (const listener of this.#listeners) listener(changes);
  }
}

/** The connection to the shared worker, or to a worker of this page alone. */
function connect() {
  if (window.SharedWorker) return new SharedWorker(import.meta.url, { type: "module", name: document.baseURI }).port;
  const { port1, port2 } = new MessageChannel();
  accept(port1);
  return port2;
}
