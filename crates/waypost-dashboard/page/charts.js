// Sparklines, and strips that show the history of a service.

import { clock } from "./format.js";
import { attribute, svg } from "./dom.js";
import { LEVELS } from "./icons.js";

/** The number of points of a sparkline. */
const POINTS = 60;
/** How far back the strips go, in seconds. */
const STRIP_SECONDS = 900;

export function spark() {
  return svg(
    "svg.spark", { viewBox: "0 0 120 30", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path.a"), svg("path.l"),
  );
}

/**
 * Draws the last `seconds` of values of buckets.
 * @param {SVGElement & {_drawn?: number}} element @param {import("./types.d.ts").Bucket[]} buckets @param {number} second
 * @param {{ seconds?: number, value?: (bucket: import("./types.d.ts").Bucket) => number, mean?: boolean }} [options]
 */
export function drawSpark(element, buckets, second, { seconds = 300, value = (bucket) => bucket[1], mean = false } = {}) {
  const width = seconds / POINTS;
  // Drawn only when there is a new point.
  const drawn = Math.floor(second / width);
  if (element._drawn === drawn) return;
  element._drawn = drawn;
  const sums = new Array(POINTS).fill(0);
  const counts = new Array(POINTS).fill(0);
  const start = (drawn - POINTS) * width;
  for (const bucket of buckets) {
    const index = Math.floor((bucket[0] - start) / width);
    if (index < 0 || index >= POINTS) continue;
    sums[index] += value(bucket);
    counts[index] += 1;
  }
  const values = sums.map((sum, index) => (mean ? sum / (counts[index] || 1) : sum));
  const top = Math.max(...values, 1e-9);
  const line = values.map((value, index) => `${index ? "L" : "M"}${((index * 120) / (POINTS - 1)).toFixed(1)} ${(28 - (value / top) * 24).toFixed(1)}`).join("");
  const [area, path] = element.children;
  path.setAttribute("d", line);
  area.setAttribute("d", `${line}L120 30L0 30Z`);
}

/** @param {boolean} [wide] */
export const strip = (wide = false) =>
  svg("svg", { class: wide ? "past wide" : "past", viewBox: "0 0 900 10", preserveAspectRatio: "none", role: "img" });

/**
 * Draws the changes of the last 15 minutes.
 * @param {SVGElement & {_key?: string}} element @param {[number, string][]} history seconds and status, oldest first
 * @param {number} now in seconds
 */
export function drawStrip(element, history, now) {
  const start = now - STRIP_SECONDS;
  // In ten seconds the strip moves by about a pixel.
  const key = `${Math.floor(now / 10)} ${history.length} ${history.at(-1)?.join()}`;
  if (element._key === key) return;
  element._key = key;
  const parts = history.map(([from, status], index) => ({
    from: Math.max(from, start) - start,
    to: (history[index + 1]?.[0] ?? now) - start,
    status,
  })).filter((part) => part.to > 0);
  const first = parts[0]?.from ?? STRIP_SECONDS;
  const all = [{ from: 0, to: first, status: "removed" }, ...parts];
  element.replaceChildren(
    ...all.filter((part) => part.to > part.from).map(({ from, to, status }) => {
      // A minimum width keeps short failures visible, and a gap separates two states.
      const least = status === "removed" ? 2 : 14;
      const width = Math.max(to - from - 6, least);
      return svg("rect", { class: LEVELS[status] ?? "none", x: Math.min(from, STRIP_SECONDS - width).toFixed(0), y: "0", width: width.toFixed(0), height: "10" });
    }),
  );
  attribute(element, "aria-label", describe(history, now));
}

/** What a strip shows, in words. @param {[number, string][]} history @param {number} now */
export function describe(history, now) {
  const recent = history.filter(([second]) => second > now - STRIP_SECONDS);
  const last = history.at(-1);
  if (!last) return "no history";
  const words = /** @type {Record<string, string>} */ ({ passing: "passing", warning: "warning", critical: "failing", removed: "not there" });
  if (!recent.length) return `${words[last[1]]} for 15 minutes`;
  const failures = recent.filter(([, status]) => status === "critical").length;
  return `${words[last[1]]} since ${clock(last[0] * 1000)}${failures ? `; failed ${failures === 1 ? "once" : `${failures} times`} in 15 minutes` : ""}`;
}

const WORST = ["removed", "passing", "warning", "critical"];

/** The history of several instances as one: the worst at each time. @param {[number, string][][]} histories @returns {[number, string][]} */
export function worstOf(histories) {
  if (histories.length === 1) return histories[0];
  const changes = histories.flatMap((history, index) => history.map(([second, status]) => ({ second, status, index })));
  changes.sort((a, b) => a.second - b.second);
  /** @type {string[]} */
  const current = [];
  /** @type {[number, string][]} */
  const merged = [];
  for (const { second, status, index } of changes) {
    current[index] = status;
    const worst = current.reduce((worst, it) => (it && WORST.indexOf(it) > WORST.indexOf(worst) ? it : worst), "removed");
    if (merged.at(-1)?.[1] !== worst) merged.push([second, worst]);
  }
  return merged;
}
