// The shared worker opens one set of streams for all pages of a browser. A browser opens only about six connections to
// a host; if each page had its own streams, no connection would be left for anything else. While all pages are hidden,
// no stream is open. In browsers without shared workers, as on phones, a page runs this itself.

import { Streams } from "./streams.js";
import { apply, emptyState } from "./state.js";

/** @type {Streams | null} */
let allStreams = null;
let state = emptyState();
/** The visible pages, and whether each shows log lines. @type {Map<MessagePort, boolean>} */
const pages = new Map();

/** Accepts pages that connect. */
export function runWorker() {
  self.addEventListener("connect", (event) => accept(/** @type {MessageEvent} */ (event).ports[0]));
}

/** Answers a page. @param {MessagePort} port */
export function accept(port) {
  port.addEventListener("message", ({ data }) => receive(port, data));
  port.start();
}

/** @param {MessagePort} port @param {any} message */
function receive(port, { type, sources, base, token, logs }) {
  if (type === "hide") pages.delete(port);
  else {
    allStreams ??= new Streams(sources, base, publish);
    if (token) allStreams.setToken(token);
    if (!pages.has(port)) port.postMessage({ name: "state", data: state });
    pages.set(port, logs);
    allStreams.open();
  }
  allStreams?.wantLogs([...pages.values()].includes(true));
  if (!pages.size) allStreams?.close();
}

/** @param {import("./types.d.ts").Message} message */
function publish(message) {
  apply(state, message);
  for (const port of pages.keys()) port.postMessage(message);
}
