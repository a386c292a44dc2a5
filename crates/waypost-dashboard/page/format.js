// Numbers, times and texts as the page shows them.

/** A duration such as "3.8 s", "14 s", "2 m 14 s", "18 m", "3 h 5 m" or "2 d". @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 9.95) return `${seconds < 0.05 ? 0 : Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10) return whole % 60 ? `${minutes} m ${whole % 60} s` : `${minutes} m`;
  if (minutes < 60) return `${minutes} m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} m` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** A time of day such as "12:04:51". @param {number} time in milliseconds */
export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

/** A time of day such as "12:04:51.118". @param {number} time in milliseconds */
export const preciseClock = (time) => `${clock(time)}.${String(new Date(time).getMilliseconds()).padStart(3, "0")}`;

/** Date and time for a `title`. @param {number} time in milliseconds */
export const exact = (time) => `${new Date(time).toLocaleDateString("en-CA")} ${preciseClock(time)}`;

/** A time as in RFC 3339, in milliseconds; 0 if there is none. @param {string | null | undefined} text */
export const parseTime = (text) => (text ? Date.parse(text) || 0 : 0);

/** A size such as "84 MB". @param {number} bytes */
export function size(bytes) {
  const mega = bytes / 1e6;
  return mega < 1000 ? `${mega < 9.5 ? mega.toFixed(1) : Math.round(mega)} MB` : `${(mega / 1000).toFixed(1)} GB`;
}

/** A rate such as "0.3", "31" or "1,204". @param {number} perSecond */
export function rate(perSecond) {
  if (perSecond === 0) return "0";
  if (perSecond < 9.95) return String(Number(perSecond.toFixed(1)));
  return Math.round(perSecond).toLocaleString("en");
}

/** A share such as "0.2 %" or "100 %". @param {number} share from 0 to 1 */
export function percent(share) {
  const value = share * 100;
  return `${value > 0 && value < 9.95 ? Number(value.toFixed(1)) || "<0.1" : Math.round(value)} %`;
}

/** A latency such as "48" or "0.6", in ms. @param {number} milliseconds */
export const millis = (milliseconds) =>
  milliseconds < 9.95 ? String(Number(milliseconds.toFixed(1))) : Math.round(milliseconds).toLocaleString("en");

/** @param {number} number @param {string} one @param {string} [many] */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** Compares names as people sort them: web-2 before web-10. */
export const byName = new Intl.Collator("en", { numeric: true }).compare;

/** The parts of the output of a health check: the request, the status and the text.
 * @param {string} output */
export function checkOutput(output) {
  const http = /^HTTP (\w+) (\S+): (\d{3})[^\n]*?Output: ([^]*)$/.exec(output);
  if (http) {
    const [, method, url, status, body] = http;
    return { method, url, path: path(url), status, text: body.trim() };
  }
  const failed = /^(?:Get|Head|Post|Put) "([^"]*)": ([^]*)$/.exec(output);
  if (failed) return { method: "", url: failed[1], path: path(failed[1]), status: "", text: failed[2].trim() };
  return { method: "", url: "", path: "", status: "", text: output.trim() };
}

/** @param {string} url */
function path(url) {
  try {
    return new URL(url).pathname;
  } catch {
    return url;
  }
}

/** The first line of a text. @param {string} text */
export const firstLine = (text) => text.split("\n", 1)[0];
