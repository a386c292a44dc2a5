// The streams of the stack, the registry, the gateway and the logs. A stream that breaks is opened again, and continues
// after the last event that was received.

import { StreamError, readEvents } from "./sse.js";

/** @typedef {import("./types.d.ts").Sources} Sources */
/** @typedef {import("./types.d.ts").Message} Message */
/** @typedef {import("./types.d.ts").SourceName} SourceName */

const FIRST_DELAY_MS = 250;
const MAX_DELAY_MS = 3000;
/** The number of earlier log lines that are loaded first. */
const FIRST_LINES = 1000;
/** Lines that arrive within this time are one message. */
const LINES_MS = 100;

export class Streams {
  /** @type {Map<SourceName, AbortController>} */
  #running = new Map();
  /** @type {Map<SourceName, string>} */
  #lastIds = new Map();
  #token = "";
  #wantsLogs = false;
  #isOpen = false;
  /** @type {import("./types.d.ts").LogLine[]} */
  #lines = [];
  #linesTimer = 0;
  #areLinesNew = true;

  /** @param {Sources} sources @param {string} base the address that URLs are relative to @param {(message: Message) => void} publish */
  constructor(sources, base, publish) {
    this.sources = sources;
    this.base = base;
    this.publish = publish;
  }

  /** Opens the streams that are not open. */
  open() {
    this.#isOpen = true;
    const { stack, registry, traffic } = this.sources;
    if (stack) this.#follow("stack", () => `${stack}events`);
    if (registry) this.#follow("registry", () => this.#registryUrl(registry));
    if (traffic) this.#follow("traffic", () => `${traffic}?seconds=900`);
    if (stack && this.#wantsLogs) this.#follow("logs", () => `${stack}logs?follow=true&n=${FIRST_LINES}`);
  }

  /** Closes all streams. */
  close() {
    this.#isOpen = false;
    for (const source of this.#running.keys()) this.#stop(source);
  }

  /** @param {SourceName} source */
  #stop(source) {
    this.#running.get(source)?.abort();
    this.#running.delete(source);
  }

  /** Sets the token of the registry, and tries again. @param {string} token */
  setToken(token) {
    if (token === this.#token) return;
    this.#token = token;
    this.#stop("registry");
    if (this.#isOpen) this.open();
  }

  /** Whether some page shows log lines. @param {boolean} wanted */
  wantLogs(wanted) {
    this.#wantsLogs = wanted;
    if (!wanted) this.#stop("logs");
    else if (this.#isOpen) this.open();
  }

  /** @param {string} registry */
  #registryUrl(registry) {
    const last = this.#lastIds.get("registry");
    return `${registry}waypost/events${last ? `?after=${encodeURIComponent(last)}` : ""}`;
  }

  /**
   * Reads a stream until it is closed.
   * @param {SourceName} source @param {() => string} url
   */
  async #follow(source, url) {
    if (this.#running.has(source)) return;
    const controller = new AbortController();
    const { signal } = controller;
    this.#running.set(source, controller);
    let delay = FIRST_DELAY_MS;
    let lostSince = 0;
    this.#publishState(source, "connecting", Date.now());
    while (!signal.aborted) {
      try {
        await readEvents(new URL(url(), this.base).href, {
          headers: this.#headers(source),
          signal,
          onOpen: () => {
            delay = FIRST_DELAY_MS;
            lostSince = 0;
            this.#publishState(source, "live", Date.now());
          },
          onEvent: (name, data, id) => {
            if (signal.aborted) return;
            if (id) this.#lastIds.set(source, id);
            this.#received(source, name, data);
          },
        });
      } catch (error) {
        if (signal.aborted) return;
        const status = error instanceof StreamError ? error.status : 0;
        const isDenied = status === 401 || status === 403;
        lostSince ||= Date.now();
        this.#publishState(source, isDenied ? "denied" : "lost", lostSince, /** @type {Error} */ (error).message);
        if (status === 404) this.#lastIds.delete(source);
      }
      await new Promise((resolve) => setTimeout(resolve, delay * (0.75 + Math.random() / 2)));
      delay = Math.min(delay * 2, MAX_DELAY_MS);
    }
  }

  /** @param {SourceName} source */
  #headers(source) {
    /** @type {Record<string, string>} */
    const headers = {};
    const last = this.#lastIds.get(source);
    if (last && source === "stack") headers["last-event-id"] = last;
    if (this.#token && source === "registry") headers["x-consul-token"] = this.#token;
    return headers;
  }

  /** @param {SourceName} source @param {import("./types.d.ts").StreamState["state"]} state @param {number} since @param {string} [error] */
  #publishState(source, state, since, error = "") {
    this.publish({ source, name: "stream", data: { state, since, error } });
  }

  /** @param {SourceName} source @param {string} name @param {any} data */
  #received(source, name, data) {
    if (name === "line") this.#line(data);
    // If the registry has no events, the server polls it and reports its outages here.
    else if (name === "outage") this.#publishState(source, "lost", Date.parse(data.since), data.error);
    else if (name === "recovered") this.#publishState(source, "live", Date.now());
    else this.publish({ source, name, data });
    // A gateway alone says whether its registry can be reached.
    if (name === "routes" && !this.sources.registry) this.#publishState("registry", data.outage ? "lost" : "off", Date.now() - (data.age_seconds ?? 0) * 1000, data.outage ?? "");
  }

  /** @param {import("./types.d.ts").LogLine} line */
  #line(line) {
    this.#lines.push(line);
    this.#linesTimer ||= setTimeout(() => {
      this.#linesTimer = 0;
      this.publish({ source: "logs", name: this.#areLinesNew ? "first lines" : "lines", data: this.#lines });
      this.#lines = [];
      this.#areLinesNew = false;
    }, LINES_MS);
  }
}
