// Receives the overview of the services for all tabs of this page. A browser opens only about six
// connections to a host, so one stream for each tab would leave none for anything else.

const ports = new Set();
let source = null;
/** The latest state, for tabs that open later. */
let state = { overview: null, receivedAt: 0, connected: true };

self.addEventListener("connect", ({ ports: [port] }) => {
  ports.add(port);
  port.addEventListener("message", ({ data }) => {
    if (data === "open") {
      ports.add(port);
      open();
    }
    if (data === "close") ports.delete(port);
    if (!ports.size) close();
  });
  port.start();
  open();
  if (state.overview || !state.connected) port.postMessage(state);
});

function open() {
  if (source) return;
  source = new EventSource("events");
  source.addEventListener("overview", ({ data }) => {
    state = { overview: JSON.parse(data), receivedAt: Date.now(), connected: true };
    publish();
  });
  source.addEventListener("error", () => {
    state = { ...state, connected: false };
    publish();
    // The browser doesn't reconnect after a response that is not an event stream, such as a gateway's error.
    if (source?.readyState === EventSource.CLOSED) {
      close();
      setTimeout(() => ports.size && open(), 2000);
    }
  });
}

function close() {
  source?.close();
  source = null;
}

function publish() {
  for (const port of ports) port.postMessage(state);
}
