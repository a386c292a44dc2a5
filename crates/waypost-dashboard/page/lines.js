// One line of a log.

import { href } from "./address.js";
import { el } from "./dom.js";
import { exact, preciseClock } from "./format.js";

/** The number of colours of services in logs. They are never the red, amber or green of states. */
const COLOURS = 6;
/** The levels, and how they are shown. @type {Record<string, [string, string]>} */
const LOG_LEVELS = { error: ["ERROR", "bad"], warn: ["WARN", "warn"], info: ["INFO", "muted"], debug: ["DEBUG", "idle"], trace: ["TRACE", "idle"] };

/** The class of the colour of a service. @param {string} service */
export function colour(service) {
  let hash = 0;
  for (const character of service) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return `c${(hash % COLOURS) + 1}`;
}

/**
 * The element of a line. Starts and ends of instances are shown as rules between the lines.
 * @param {import("./types.d.ts").LogLine} line @param {{ short?: boolean, query?: string }} [options]
 */
export function logLine(line, { short = false, query = "" } = {}) {
  const time = Date.parse(line.time);
  if (line.stream === "event") {
    return el("li.mark", el("span", { title: exact(time) }, `${line.text.startsWith(line.instance) || line.text.startsWith(line.service) ? "" : `${line.instance || line.service}: `}${line.text}`));
  }
  const access = accessEntry(line);
  // The access log has no levels.
  const known = line.level ?? (access ? (Number(access.status) >= 500 ? "error" : Number(access.status) >= 400 ? "warn" : "info") : "");
  const [word, level] = LOG_LEVELS[known] ?? [line.stream === "stderr" ? "err" : "", "muted"];
  return el(
    "li", { class: line.level === "error" ? "err" : null },
    el("time", { title: exact(time), datetime: line.time }, preciseClock(time)),
    !short && el(`span.svc.${colour(line.service)}`, { title: line.instance }, line.instance || line.service),
    el(`span.lv.${level}`, word),
    el("span.msg", ...(accessMessage(access) ?? highlight(withoutTime(plain(line.text), time), query))),
  );
}

/** An entry of the access log in the words of a person; the request is a link to all lines of it. @param {ReturnType<typeof accessEntry>} entry */
function accessMessage(entry) {
  if (!entry) return null;
  const { method, path, status, instance, route, duration_ms, attempts, cause, request_id } = entry;
  return [
    `${method} ${path} `, el("b", status ?? "–"), instance || route ? ` → ${instance || route}` : "", duration_ms ? ` in ${duration_ms} ms` : "",
    Number(attempts) > 1 ? `, ${attempts} attempts` : "", cause ? `: ${plain(cause)}` : "",
    request_id ? el("a.addr.request", { href: href(["logs"], { request: request_id }), title: "All lines of this request" }, request_id.slice(0, 8)) : null,
  ].filter((part) => part !== null);
}

/** A text without the escape sequences of terminals. @param {string} text */
// eslint-disable-next-line no-control-regex
const plain = (text) => text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "");

/** A date, which may be missing, and a time of day at the start of a line, as loggers write them. */
const STAMP = /^\s*\[?(?:(\d{4})[-/](\d\d)[-/](\d\d)[T ])?(\d\d):(\d\d):(\d\d)([.,]\d+)? ?(Z|[+-]\d\d:?\d\d)?\]?:?\s+(?=\S)/;
/** How long a line may be on its way. */
const MAX_DELAY_S = 5;

/**
 * A line without the time that the program has written, if it is the time in the column beside it. The time zone of a
 * program isn't known, so a difference of whole quarters of an hour doesn't matter.
 * @param {string} text @param {number} received
 */
export function withoutTime(text, received) {
  const found = STAMP.exec(text);
  if (!found) return text;
  const now = new Date(received);
  const [year = now.getUTCFullYear(), month = now.getUTCMonth() + 1, day = now.getUTCDate(), ...time] = found.slice(1, 7).map((part) => part && Number(part));
  const [hours, minutes, seconds] = /** @type {number[]} */ (time);
  const ago = (received - Date.UTC(Number(year), Number(month) - 1, Number(day), hours, minutes, seconds)) / 1000;
  const quarters = Math.round(ago / 900);
  return Math.abs(ago - quarters * 900) <= MAX_DELAY_S && Math.abs(quarters) < 60 ? text.slice(found[0].length) : text;
}

/** @param {string} text @param {string} query */
function highlight(text, query) {
  if (!query) return [text];
  const parts = [];
  const lower = text.toLowerCase();
  let at = 0;
  for (;;) {
    const found = lower.indexOf(query, at);
    if (found < 0 || parts.length > 40) break;
    parts.push(text.slice(at, found), el("mark", text.slice(found, found + query.length)));
    at = found + query.length;
  }
  return [...parts, text.slice(at)];
}

/** The fields of a line of the gateway's access log; null if it isn't one. @param {import("./types.d.ts").LogLine} line */
export function accessEntry(line) {
  if (!line.text.includes("request_id=") || !line.text.includes("method=")) return null;
  /** @type {Record<string, string>} */
  const fields = {};
  for (const [, name, quoted, plain] of line.text.matchAll(/(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))/g)) fields[name] = quoted ?? plain;
  return /** @type {Record<string, string> & { id: number }} */ (/** @type {unknown} */ ({ ...fields, id: line.id }));
}
