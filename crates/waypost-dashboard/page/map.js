// Which service calls which: as a map, and as a table with the same figures.

import * as address from "./address.js";
import { attribute, el, once, svg, text } from "./dom.js";
import { byName, millis, percent, rate } from "./format.js";
import { sign } from "./icons.js";
import { keyLine } from "./keys.js";
import { callersOf, isGateway, measure } from "./model.js";

/**
 * @typedef {import("./types.d.ts").Level} Level
 * @typedef {{ from: string, to: string, rate: number, share: number, p50: number | null, p99: number | null, level: Level }} Call
 * @typedef {{ name: string, level: Level, words: string, column: number, x: number, y: number, isService: boolean }} Box
 */

/** The name for callers outside of the stack. */
const OUTSIDE = "outside";
const WIDTH = 156;
const HEIGHT = 52;
const COLUMN = 310;
const LINE = 84;

export class MapView {
  title = "Map";
  #drawn = "";

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.plan = el("div.plan", { tabindex: "0", role: "region", "aria-label": "Map, scrolls sideways" });
    this.rows = el("tbody");
    this.note = el("p.nothing", { hidden: true });
    const head = ["From", "To", "Calls", "p50", "p99", "Failed", "What fails"];
    const about = app.sources.traffic ? "Calls seen by the gateway in the last minute; those that fail are dashed" : "The services that each service says it uses";
    this.element = el(
      "div.main", el("h1.sr", "Map"),
      el("section.card", { "aria-label": "Map" }, el("div.bar", el("h2", "Map"), el("span.muted.small", about), el("span.end", app.sources.traffic ? "Last minute" : "")), this.plan, this.note),
      el(
        "section.card", { "aria-labelledby": "t-calls" },
        el("div.bar", el("h2", { id: "t-calls" }, "Calls"), el("span.end", "Worst first")),
        el("div.wide", { tabindex: "0", role: "region", "aria-label": "Table of calls" }, el("table.calls-table", { "aria-labelledby": "t-calls" }, el("thead", el("tr", ...head.map((title, index) => el("th", { scope: "col", class: index > 1 && index < 6 ? "num" : null }, title)))), this.rows)),
      ),
      keyLine([[["/"], "find"], [["s"], "services"], [["?"], "all keys"]]),
    );
  }

  show() {
    this.#drawn = "";
  }

  /** @param {import("./store.js").Changes} changes */
  update(changes) {
    if (changes.all || changes.services.size || changes.streams) this.#draw();
    else if (changes.second) this.#draw();
  }

  tick() {}

  key() {
    return false;
  }

  // === Data ===

  /** The name of the gateway, if there is one. */
  #gateway() {
    const named = this.app.sorted.find((row) => isGateway(this.app.state, row.name));
    return named?.name ?? (this.app.sources.traffic ? "gateway" : "");
  }

  /** @returns {Call[]} */
  #calls() {
    const { state } = this.app;
    const gateway = this.#gateway();
    /** @type {Map<string, Call>} */
    const calls = new Map();
    const add = (/** @type {string} */ from, /** @type {string} */ to, /** @type {number} */ perSecond) => {
      const key = `${from}\n${to}`;
      const call = calls.get(key) ?? { from, to, rate: 0, share: 0, p50: null, p99: null, level: /** @type {Level} */ ("ok") };
      call.rate += perSecond;
      calls.set(key, call);
    };
    for (const name of state.traffic.keys()) {
      const { rate: all } = measure(state, name, 60);
      if (!all) continue;
      let rest = all;
      for (const [caller, perSecond] of callersOf(state, name)) {
        if (!this.app.rows.has(caller) || caller === gateway) continue;
        add(caller, name, perSecond);
        rest -= perSecond;
      }
      if (rest > all / 1000) {
        add(gateway, name, rest);
        add(OUTSIDE, gateway, rest);
      }
    }
    for (const row of this.app.sorted) {
      for (const used of row.uses) if (this.app.rows.has(used)) add(row.name, used, 0);
    }
    for (const call of calls.values()) {
      if (call.to === gateway || !call.rate) continue;
      const { share, p50, p99 } = measure(state, call.to, 60);
      Object.assign(call, { share, p50, p99, level: share >= 0.05 ? "bad" : share > 0 ? "warn" : "ok" });
    }
    return [...calls.values()];
  }

  /** @param {Call[]} calls @returns {Box[]} */
  #boxes(calls) {
    const gateway = this.#gateway();
    const names = new Set(this.app.sorted.map((row) => row.name));
    for (const { from, to } of calls) names.add(from).add(to);
    if (gateway) names.add(gateway);
    // A service is one column further right than its callers. Cycles are not followed.
    /** @type {Map<string, number>} */
    const columns = new Map();
    const place = (/** @type {string} */ name, /** @type {number} */ column, /** @type {string[]} */ path) => {
      if (path.includes(name) || (columns.get(name) ?? -1) >= column || column > 6) return;
      columns.set(name, column);
      for (const call of calls) if (call.from === name) place(call.to, column + 1, [...path, name]);
    };
    if (names.has(OUTSIDE)) place(OUTSIDE, 0, []);
    const first = names.has(OUTSIDE) ? 1 : 0;
    if (gateway) place(gateway, first, []);
    const isCalled = new Set(calls.map((call) => call.to));
    for (const name of names) if (!isCalled.has(name) && name !== OUTSIDE && name !== gateway) place(name, gateway ? first + 1 : 0, []);
    for (const name of names) if (!columns.has(name)) place(name, first + 1, []);
    const used = [...new Set(columns.values())].sort((a, b) => a - b);
    return [...names].map((name) => {
      const row = this.app.rows.get(name);
      const words = name === OUTSIDE ? "browsers, curl" : row ? (row.level === "ok" ? (row.wanted > 1 ? `${row.ready} ready` : row.word.toLowerCase()) : row.word.toLowerCase()) : "";
      return { name, level: row?.level ?? "idle", words, column: used.indexOf(columns.get(name) ?? 0), x: 0, y: 0, isService: !!row && this.app.views.has("services") };
    });
  }

  // === Drawing ===

  #draw() {
    const calls = this.#calls();
    const boxes = this.#boxes(calls);
    const isEmpty = !calls.length;
    this.note.hidden = !isEmpty;
    if (isEmpty) {
      const how = this.app.sources.traffic ? "The gateway has seen no call in the last minute. Send one to the gateway, and it appears here." : "No service declares which services it uses, and there is no gateway.";
      text(this.note, how);
    }
    this.#drawPlan(boxes, calls);
    this.#drawTable(calls);
  }

  /** @param {Box[]} boxes @param {Call[]} calls */
  #drawPlan(boxes, calls) {
    const key = JSON.stringify([boxes.map((box) => [box.name, box.level, box.words]), calls.map((call) => [call.from, call.to, rate(call.rate), percent(call.share), call.p99 && millis(call.p99)])]);
    if (key === this.#drawn) return;
    this.#drawn = key;
    const focused = document.activeElement?.closest("[data-box]")?.getAttribute("data-box");
    const columns = Math.max(0, ...boxes.map((box) => box.column)) + 1;
    const byColumn = Array.from({ length: columns }, (_, column) => boxes.filter((box) => box.column === column));
    const height = Math.max(3, ...byColumn.map((column) => column.length)) * LINE;
    const places = new Map(boxes.map((box) => [box.name, box]));
    for (const [index, column] of byColumn.entries()) {
      // Ordered by the heights of their callers, so that few lines cross.
      const middle = (/** @type {Box} */ box) => {
        const from = calls.filter((call) => call.to === box.name).map((call) => places.get(call.from)?.y ?? 0).filter(Boolean);
        return from.length ? from.reduce((a, b) => a + b, 0) / from.length : Infinity;
      };
      column.sort((a, b) => (index > 2 ? middle(a) - middle(b) : 0) || byName(a.name, b.name));
      const top = (height - column.length * LINE) / 2;
      column.forEach((box, line) => {
        box.x = 16 + index * COLUMN;
        box.y = top + line * LINE + (LINE - HEIGHT) / 2;
      });
    }
    const width = (columns - 1) * COLUMN + WIDTH + 32;
    const known = calls.map((call) => ({ call, from: places.get(call.from), to: places.get(call.to) })).filter((it) => it.from && it.to);
    const lines = known.map(({ call, from, to }) => this.#line(call, /** @type {Box} */ (from), /** @type {Box} */ (to)));
    const labels = known.filter(({ call }) => call.rate > 0).map(({ call, from, to }) => this.#label(call, /** @type {Box} */ (from), /** @type {Box} */ (to)));
    const drawing = svg(
      "svg.map", { viewBox: `0 0 ${width} ${height}`, width: String(width), height: String(height), role: "group", "aria-label": "Which service calls which. The table below has the same data." },
      ...lines, ...boxes.map((box) => this.#box(box)), ...labels,
    );
    this.plan.replaceChildren(drawing);
    if (focused) /** @type {any} */ (this.plan.querySelector(`[data-box="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @param {Box} box */
  #box(box) {
    const name = box.name.length > 16 ? `${box.name.slice(0, 15)}…` : box.name;
    const mark = svg("g", { class: box.level, transform: "translate(13 12)" }, sign(box.level));
    const parts = [svg("rect", { width: String(WIDTH), height: String(HEIGHT), rx: "10" }), mark, svg("text", { x: "34", y: "23" }, `${name} `), svg("text.s", { x: "34", y: "40" }, box.words.slice(0, 20))];
    const attributes = { class: `n ${box.level}`, transform: `translate(${box.x} ${box.y})`, "data-box": box.name };
    if (!box.isService) return svg("g", attributes, ...parts);
    return svg("a", { ...attributes, href: address.href(["services", box.name]) }, ...parts);
  }

  /** @param {Call} call @param {Box} from @param {Box} to */
  #line(call, from, to) {
    const { d } = curve(from, to);
    const thickness = call.rate ? Math.min(4.5, 1 + Math.log10(1 + call.rate) * 1.5) : 1;
    return svg(`path.e.${call.rate ? call.level : "unused"}`, { d, "stroke-width": thickness.toFixed(1) });
  }

  /** @param {Call} call @param {Box} from @param {Box} to */
  #label(call, from, to) {
    const { x, y } = curve(from, to);
    const what = call.share >= 0.999 ? "all fail" : call.share > 0 ? `${percent(call.share)} fail` : call.p99 != null ? `${millis(call.p99)} ms` : "";
    const words = [`${rate(call.rate)}/s`, what].filter(Boolean).join(" · ");
    const width = words.length * 6.5 + 12;
    return svg(
      `g.t.${call.level === "ok" ? "" : call.level}`, { transform: `translate(${(x - width / 2).toFixed(0)} ${(y - 10).toFixed(0)})`, "aria-hidden": "true" },
      svg("rect", { width: width.toFixed(0), height: "20", rx: "5" }), svg("text", { x: (width / 2).toFixed(0), y: "14", "text-anchor": "middle" }, words),
    );
  }

  /** @param {Call[]} calls */
  #drawTable(calls) {
    const seen = calls.filter((call) => call.rate > 0 && call.from !== OUTSIDE);
    seen.sort((a, b) => b.share - a.share || b.rate - a.rate || byName(a.to, b.to));
    const key = JSON.stringify(seen.map((call) => [call.from, call.to, rate(call.rate), percent(call.share), call.p50, call.p99]));
    once(this.rows, key, () => (seen.length ? seen : []).map((call) => {
      const row = this.app.rows.get(call.to);
      const level = row?.level ?? "idle";
      const latency = (/** @type {number | null} */ value) => (value == null ? "–" : `${millis(value)} ms`);
      const failed = call.share ? percent(call.share) : "0";
      return el(
        "tr", el("td", call.from), el("td", el(`a.st.${level}`, { href: this.app.views.has("services") ? address.href(["services", call.to]) : null }, sign(level), call.to)),
        el("td.num", `${rate(call.rate)} /s`), el("td.num", latency(call.p50)), el("td.num", latency(call.p99)),
        el(`td.num.${call.share ? call.level : "muted"}`, failed), el("td.muted", call.share ? row?.need?.line || row?.below || "" : ""),
      );
    }));
    attribute(this.rows, "data-empty", seen.length ? null : "true");
  }
}

/** A curve from the right of one box to the left of another, and the position of its label. @param {Box} from @param {Box} to */
function curve(from, to) {
  const x1 = from.x + WIDTH;
  const y1 = from.y + HEIGHT / 2;
  const x2 = to.x;
  const y2 = to.y + HEIGHT / 2;
  if (x2 <= x1) {
    // A curve to the same or an earlier column goes around the right side.
    const out = Math.max(x1, to.x + WIDTH) + 46;
    return { d: `M${x1} ${y1}C${out} ${y1} ${out} ${y2} ${to.x + WIDTH} ${y2}`, x: out - 12, y: (y1 + y2) / 2 };
  }
  const middle = (x1 + x2) / 2;
  // The label is nearer to the callee, where the lines from one caller have spread out.
  const t = 0.62;
  const at = (/** @type {number} */ a, /** @type {number} */ b, /** @type {number} */ c, /** @type {number} */ d) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
  return { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, x: at(x1, middle, middle, x2), y: at(y1, y1, y2, y2) };
}
