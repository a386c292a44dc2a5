// The shared worker opens one set of streams for all pages of a browser. A browser opens only about six connections to
// a host; if each page had its own streams, no connection would be left for anything else. While all pages are hidden,
// no stream is open.

import { Feed } from "./feed.js";
import { apply, emptyState } from "./state.js";

/** @type {Feed | null} */
let feed = null;
let state = emptyState();
/** The visible pages, and whether each shows log lines. @type {Map<MessagePort, boolean>} */
const pages = new Map();

/** Accepts pages that connect. */
export function runWorker() {
  self.addEventListener("connect", (event) => {
    const [port] = /** @type {MessageEvent} */ (event).ports;
    port.addEventListener("message", ({ data }) => receive(port, data));
    port.start();
  });
}

/** @param {MessagePort} port @param {any} message */
function receive(port, message) {
  switch (message.type) {
    case "show":
      feed ??= new Feed(message.sources, message.base, publish);
      if (message.token) feed.setToken(message.token);
      pages.set(port, message.logs);
      port.postMessage({ type: "state", state });
      feed.open();
      break;
    case "logs":
      if (pages.has(port)) pages.set(port, message.wanted);
      break;
    case "token":
      feed?.setToken(message.token);
      break;
    case "hide":
      pages.delete(port);
      break;
  }
  feed?.wantLogs([...pages.values()].includes(true));
  if (!pages.size) feed?.close();
}

/** @param {import("./types.d.ts").Message} message */
function publish(message) {
  state = apply(state, message);
  for (const port of pages.keys()) port.postMessage(message);
}
