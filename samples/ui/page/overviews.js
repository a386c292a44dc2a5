// Subscribes to the overview of the services.

/**
 * Calls `received` with each new state: the latest overview or null, the time when it was received, and whether the
 * event stream is connected.
 */
export function subscribe(received) {
  if (window.SharedWorker) subscribeShared(received);
  else subscribeWhileVisible(received);
}

/** Shares one event stream with the other tabs. */
function subscribeShared(received) {
  const { port } = new SharedWorker("overview-worker.js", { name: "overviews" });
  port.addEventListener("message", ({ data }) => received(data));
  port.start();
  window.addEventListener("pagehide", () => port.postMessage("close"));
  // The page may come back from the browser's cache.
  window.addEventListener("pageshow", (event) => event.persisted && port.postMessage("open"));
}

/** For browsers without shared workers, mostly on phones. A hidden tab has no event stream. */
function subscribeWhileVisible(received) {
  let source = null;
  let state = { overview: null, receivedAt: 0, connected: true };
  const publish = (change) => received((state = { ...state, ...change }));
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("events");
    source.addEventListener("overview", ({ data }) =>
      publish({ overview: JSON.parse(data), receivedAt: Date.now(), connected: true }));
    source.addEventListener("error", () => {
      publish({ connected: false });
      if (source?.readyState === EventSource.CLOSED) {
        close();
        setTimeout(open, 2000);
      }
    });
  };
  const close = () => {
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}
