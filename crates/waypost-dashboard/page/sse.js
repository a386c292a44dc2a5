// Reads server-sent events with fetch, which unlike EventSource can send a token and tells why it failed.

/** Why a stream can't be read. `status` is 0 if there was no response. */
export class StreamError extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Calls `onEvent` with each event until the stream ends. Fails with a StreamError.
 * @param {string} url
 * @param {{ headers: Record<string, string>, signal: AbortSignal, onOpen: () => void, onEvent: (name: string, data: any, id: string) => void }} options
 */
export async function readEvents(url, { headers, signal, onOpen, onEvent }) {
  let response;
  try {
    response = await fetch(url, { headers: { accept: "text/event-stream", ...headers }, signal, cache: "no-store" });
  } catch (error) {
    throw new StreamError("no connection", 0);
  }
  if (!response.ok || !response.body) throw new StreamError(await problem(response), response.status);
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
    throw new StreamError("not a stream of events", 404);
  }
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch {
      throw new StreamError("the connection was closed", 0);
    }
    if (chunk.done) throw new StreamError("the connection was closed", 0);
    rest += chunk.value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) dispatch(block, onEvent);
  }
}

/** The text of an error response: the detail of a problem document, or its first line. @param {Response} response */
export async function problem(response) {
  const body = await response.text().catch(() => "");
  try {
    const { detail, title } = JSON.parse(body);
    if (detail || title) return String(detail || title);
  } catch {
    // Not JSON.
  }
  const line = body.trim().split("\n", 1)[0].slice(0, 300);
  return line && !line.startsWith("<") ? line : `HTTP status ${response.status}`;
}

/** @param {string} block @param {(name: string, data: any, id: string) => void} onEvent */
function dispatch(block, onEvent) {
  let name = "message";
  let id = "";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const field = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") id = value;
  }
  if (!data.length) return;
  onEvent(name, JSON.parse(data.join("\n")), id);
}
