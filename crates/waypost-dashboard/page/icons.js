// The signs and icons, drawn as SVG. Next to a sign there is always a word with the same meaning.

import { svg } from "./dom.js";

/** @typedef {import("./types.d.ts").Level} Level */

/** The level of the status of a check. @type {Record<string, Level>} */
export const LEVELS = { passing: "ok", warning: "warn", critical: "bad" };

/** The sign of a level: a cross, a triangle, a dashed ring or a dot. @param {Level} level */
export function sign(level) {
  const shape = {
    bad: () => svg("path", { d: "m2.6 2.6 8.8 8.8m0-8.8-8.8 8.8", stroke: "currentColor", "stroke-width": "2.6", "stroke-linecap": "round" }),
    warn: () => svg("path", { d: "M7 1.6 13 12.2H1z", fill: "currentColor" }),
    idle: () => svg("circle", { cx: "7", cy: "7", r: "4.6", fill: "none", stroke: "currentColor", "stroke-width": "1.9", "stroke-dasharray": "3.2 2.6" }),
    ok: () => svg("circle", { cx: "7", cy: "7", r: "5", fill: "currentColor" }),
  }[level]();
  return svg("svg", { width: "14", height: "14", viewBox: "0 0 14 14", "aria-hidden": "true" }, shape);
}

const PATHS = {
  restart: "M13.2 8a5.2 5.2 0 1 1-1.5-3.7M13.3 1.8v3.1h-3.1",
  log: "M2.5 3.5h11M2.5 6.5h7.5M2.5 9.5h11M2.5 12.5h6",
  find: "M11.2 7a4.2 4.2 0 1 1-8.4 0 4.2 4.2 0 0 1 8.4 0M10.3 10.3l3.2 3.2",
  close: "m3.5 3.5 9 9m0-9-9 9",
  start: "M5 3.2v9.6l7.6-4.8z",
  stop: "M4 4h8v8H4z",
  services: "M2 2.5h12v4.4H2zM2 9.1h12v4.4H2z",
  map: "M5.3 8a1.9 1.9 0 1 1-3.8 0 1.9 1.9 0 0 1 3.8 0M14.3 3.6a1.9 1.9 0 1 1-3.8 0 1.9 1.9 0 0 1 3.8 0M14.3 12.4a1.9 1.9 0 1 1-3.8 0 1.9 1.9 0 0 1 3.8 0M5.2 7.1l5.4-2.6M5.2 8.9l5.4 2.6",
  registry: "M3 3.2h10M3 8h10M3 12.8h10M1.4 3.2h.01M1.4 8h.01M1.4 12.8h.01",
  copy: "M5.5 5.5h7v8h-7zM3.5 10.5v-8h7",
  scale: "M2.5 8h11M8 2.5v11",
};

/** @param {keyof PATHS} name */
export function icon(name) {
  const solid = name === "start" || name === "stop";
  return svg(
    "svg",
    {
      width: "15", height: "15", viewBox: "0 0 16 16", "aria-hidden": "true", fill: solid ? "currentColor" : "none",
      stroke: "currentColor", "stroke-width": "1.6", "stroke-linecap": "round", "stroke-linejoin": "round",
    },
    svg("path", { d: PATHS[name] }),
  );
}
