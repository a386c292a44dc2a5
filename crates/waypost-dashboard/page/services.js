// The services: those that need attention, overall figures, and a table with failing services first. A drawer shows one
// service.

import * as address from "./address.js";
import { ways } from "./add.js";
import { drawSpark, drawStrip, spark, strip, worstOf } from "./charts.js";
import { attribute, el, hasSelection, hiddenText, keyed, once, text } from "./dom.js";
import { Drawer } from "./drawer.js";
import { millis, percent, rate } from "./format.js";
import { icon, sign } from "./icons.js";
import { keyLine } from "./keys.js";
import { hasNoService, isGateway, measure, totalTraffic, trafficOf } from "./model.js";
import { external, lasting, status, update } from "./parts.js";

/**
 * @typedef {import("./types.d.ts").Row} Row
 * @typedef {import("./app.js").App} App
 */

/** With more rows only those near the screen are in the page. */
const MAX_ROWS = 60;
/** Rows above and below the screen that are in the page. */
const OVERSCAN = 6;
/** The number of cards; the others are in the table. */
const MAX_CARDS = 5;
/** The height of a row, until one has been measured. */
const ROW_HEIGHT = 46;

/** The filters, and which rows each shows. @type {[string, string, (row: Row) => boolean][]} */
const FILTERS = [
  ["", "All", () => true],
  ["need", "Need you", (row) => row.need !== null],
  ["starting", "Starting", (row) => row.level === "idle" && row.canRestart && !row.isStopped],
  ["stopped", "Stopped", (row) => row.level === "idle" && row.isStopped],
];

export class ServicesView {
  title = "Services";
  #height = ROW_HEIGHT;
  #selected = "";
  #query = "";
  #filter = "";

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.hasTraffic = !!app.sources.traffic;
    this.hasStack = !!app.sources.stack;
    this.needs = el("section.needs", { "aria-label": "What needs you" });
    this.vitals = el("dl.vitals");
    this.chips = el("div.chips", { role: "group", "aria-label": "Show" });
    this.note = el("span.end", "Trouble first, then by name");
    this.above = el("tbody.gap", { "aria-hidden": "true" }, el("tr", el("td", { colspan: "12" })));
    this.body = el("tbody");
    this.below = el("tbody.gap", { "aria-hidden": "true" }, el("tr", el("td", { colspan: "12" })));
    this.table = el("table", { "aria-labelledby": "t-services" }, this.#head(), this.above, this.body, this.below);
    this.none = el("p.nothing", { hidden: true }, "No service matches.");
    this.card = el(
      "section.card", { "aria-labelledby": "t-services" },
      el("div.bar", el("h2", { id: "t-services" }, "Services"), this.chips, this.note), this.table, this.none,
    );
    this.foot = keyLine([
      [["/"], "find"], [["j", "k"], "move"], [["o"], "open"],
      ...(this.hasStack ? /** @type {[string[], string][]} */ ([[["r"], "restart"], [["l"], "log"], [["m"], "map"]]) : []), [["?"], "all keys"],
    ]);
    for (const [title, href] of Object.entries(app.sources.links)) this.foot.append(el("a.addr", { href }, title));
    this.main = el("div.main", el("h1.sr", "Services"), this.needs, this.vitals, this.card, this.foot);
    this.empty = ways("No service has been added yet.", "Add one in one of three ways.");
    this.empty.hidden = true;
    this.drawer = new Drawer(app);
    this.element = el("div.services", this.main, this.empty, this.drawer.element);
    let isPlanned = false;
    window.addEventListener("scroll", () => {
      if (isPlanned || this.#shown().length <= MAX_ROWS) return;
      isPlanned = true;
      requestAnimationFrame(() => {
        isPlanned = false;
        this.#rows();
      });
    }, { passive: true });
    window.addEventListener("resize", () => this.#rows());
  }

  /** @param {address.Address} where */
  show(where) {
    this.#selected = where.rest[0] ?? "";
    this.#query = (where.query.get("q") ?? "").toLowerCase();
    this.#filter = where.query.get("show") ?? "";
    this.drawer.show(this.#selected, where.query.get("tab") ?? "");
    this.element.classList.toggle("with-drawer", this.#selected !== "");
  }

  hide() {
    this.drawer.show("", "");
  }

  /** @param {import("./store.js").Changes} changes */
  update(changes) {
    const { state } = this.app;
    const isKnown = state.streams.registry.state === "live" || state.streams.stack.state === "live";
    const isEmpty = isKnown && hasNoService(state);
    this.empty.hidden = !isEmpty;
    this.main.hidden = isEmpty;
    if (isEmpty) return;
    if (changes.all || changes.streams || changes.services.size) {
      this.#cards();
      this.#filters();
      this.#rows();
    } else if (changes.second) this.#rows();
    this.#vitals();
    this.drawer.update(changes);
  }

  /** @param {number} now */
  tick(now) {
    update(this.element, now);
    if (Math.floor(now / 1000) % 10 === 0) this.#rows();
    this.drawer.tick(now);
  }

  /** @param {string} key */
  key(key) {
    const row = this.app.rows.get(this.#current());
    switch (key) {
      case "j":
      case "k":
        this.#move(key === "j" ? 1 : -1);
        return true;
      case "o":
        if (row) address.go(this.#href(row.name));
        return !!row;
      case "Escape":
        if (this.#selected) this.#close();
        return this.#selected !== "";
      case "r":
        if (row?.canRestart && this.hasStack) this.app.actions.restart(row.name);
        return true;
      case "l":
        if (row && this.hasStack) address.go(address.href(["logs"], { service: row.name }));
        return true;
      case "+":
      case "-":
        if (row?.canRestart && this.hasStack && row.wanted + (key === "+" ? 1 : -1) > 0) {
          this.app.actions.scale(row.name, row.wanted + (key === "+" ? 1 : -1));
        }
        return true;
    }
    return false;
  }

  // === Selection ===

  /** The service that keys act on: the focused row, or that in the drawer. */
  #current() {
    const row = document.activeElement?.closest("tr[data-name], [data-name]");
    return (row instanceof HTMLElement && row.dataset.name) || this.#selected;
  }

  /** @param {number} step */
  #move(step) {
    const shown = this.#shown();
    const at = shown.findIndex((row) => row.name === this.#current());
    const next = shown[Math.min(Math.max(at < 0 ? (step > 0 ? 0 : shown.length - 1) : at + step, 0), shown.length - 1)];
    if (!next) return;
    if (shown.length > MAX_ROWS) {
      const top = this.table.getBoundingClientRect().top + scrollY + shown.indexOf(next) * this.#height;
      if (top < scrollY + 80 || top > scrollY + innerHeight - 120) window.scrollTo(0, top - innerHeight / 2);
      this.#rows();
    }
    const link = /** @type {HTMLElement | null} */ (this.body.querySelector(`tr[data-name="${CSS.escape(next.name)}"] a`));
    link?.focus();
    link?.scrollIntoView({ block: "nearest" });
    if (this.#selected) address.go(this.#href(next.name), { replace: true });
  }

  #close() {
    const name = this.#selected;
    address.go(this.#href(""));
    /** @type {HTMLElement | null} */ (this.body.querySelector(`tr[data-name="${CSS.escape(name)}"] a`))?.focus();
  }

  /** @param {string} name */
  #href(name) {
    return address.href(name ? ["services", name] : [], { show: this.#filter, q: this.#query });
  }

  // === Cards ===

  #cards() {
    const needs = this.app.needs;
    this.needs.hidden = !needs.length;
    keyed(this.needs, needs.slice(0, MAX_CARDS), (row) => row.name, () => this.#makeCard(), (card, row) => this.#drawCard(card, row));
    if (needs.length > MAX_CARDS) {
      this.needs.append(el("p.muted.more", `${needs.length - MAX_CARDS} more in the table`));
    }
  }

  #makeCard() {
    const acts = el("div.acts");
    return el("article.need", el("span.mark"), el("h2", el("a"), el("span")), el("p", el("code"), el("span.muted")), acts);
  }

  /** @param {HTMLElement} card @param {Row} row */
  #drawCard(card, row) {
    const need = /** @type {import("./types.d.ts").Need} */ (row.need);
    card.className = `need ${need.level}`;
    card.dataset.name = row.name;
    const [mark, heading, cause, acts] = /** @type {any} */ (card.children);
    once(mark, need.level, () => [sign(need.level)]);
    attribute(heading.firstChild, "href", this.#href(row.name));
    text(heading.firstChild, need.title);
    const details = [need.detail].filter(Boolean);
    once(heading.lastChild, `${details} ${row.since}`, () => [
      ...(details.length ? [` · ${details.join(" · ")}`] : []),
      row.since > 0 && lasting(row.since, " · for "),
    ]);
    text(cause.firstChild, need.code);
    text(cause.lastChild, (need.code && need.line ? " · " : "") + need.line);
    cause.hidden = !need.code && !need.line;
    once(acts, `${row.isStopped} ${row.canRestart}`, () => this.#cardActions(row));
  }

  /** @param {Row} row */
  #cardActions(row) {
    const { actions } = this.app;
    if (!this.hasStack) return [el("a.btn", { href: this.#href(row.name) }, "Why")];
    return [
      el("a.btn", { href: address.href(["logs"], { service: row.name }) }, icon("log"), "Log", hiddenText(` of ${row.name}`)),
      row.canRestart && el(`button.btn.${row.level === "bad" ? "go" : ""}`, { onclick: () => (row.isStopped ? actions.start : actions.restart)(row.name) },
        icon(row.isStopped ? "start" : "restart"), row.isStopped ? "Start" : "Restart", hiddenText(` ${row.name}`)),
    ];
  }

  // === Vital figures ===

  #vitals() {
    const rows = this.app.sorted;
    const ready = rows.filter((row) => row.level === "ok").length;
    const called = rows.filter((row) => !row.isUncalled).length;
    const instances = rows.reduce((sum, row) => sum + row.wanted, 0);
    const readyInstances = rows.reduce((sum, row) => sum + row.ready, 0);
    if (!this.vitals.children.length) {
      const vital = (/** @type {string} */ title, /** @type {boolean} */ graph) =>
        el("div.vital", el("dt", title), el("dd", el("b"), el("small")), graph && el("dd.graph", spark()));
      this.vitals.append(vital("Services ready", false));
      if (this.hasTraffic) this.vitals.append(vital("Requests", true), vital("Failed", false), vital("Slowest 1 %", true));
      else this.vitals.append(vital("Instances ready", false), vital("Need you", false));
    }
    const figures = /** @type {[string, string, string?][]} */ ([[String(ready), `of ${called}${this.hasTraffic ? ` · ${readyInstances} of ${instances} instances` : ""}`]]);
    if (this.hasTraffic) {
      const { state } = this.app;
      const all = totalTraffic(state);
      const recent = all.buckets.filter(([second]) => second > state.second - 10);
      const sum = (/** @type {1 | 2} */ field) => recent.reduce((sum, bucket) => sum + bucket[field], 0) / 10;
      const failed = sum(2);
      const worst = failed ? this.#worst() : "";
      const slowest = Math.max(0, ...recent.map((bucket) => bucket[4] ?? 0));
      figures.push([rate(sum(1)), "/s"], [rate(failed), `/s${worst}`, failed ? "bad" : ""], [slowest ? millis(slowest) : "–", slowest ? "ms" : ""]);
      const sparks = /** @type {NodeListOf<SVGElement>} */ (this.vitals.querySelectorAll(".spark"));
      drawSpark(sparks[0], all.buckets, state.second);
      drawSpark(sparks[1], all.buckets, state.second, { value: (bucket) => bucket[4] ?? 0, mean: true });
    } else {
      const needs = this.app.needs.length;
      figures.push([String(readyInstances), `of ${instances}`], [String(needs), needs === 1 ? "service" : "services", needs ? "bad" : ""]);
    }
    figures.forEach(([figure, unit, level], index) => {
      const [value, small] = /** @type {any} */ (this.vitals.children[index].children[1].children);
      text(value, figure);
      attribute(value, "class", level ?? null);
      text(small, unit);
    });
  }

  /** The service with the most failures. */
  #worst() {
    const failing = this.app.sorted.map((row) => ({ name: row.name, failed: isGateway(this.app.state, row.name) ? 0 : measure(this.app.state, row.name).failed }));
    failing.sort((a, b) => b.failed - a.failed);
    if (!failing[0]?.failed) return "";
    return failing[1]?.failed ? `, most calls to ${failing[0].name}` : `, all calls to ${failing[0].name}`;
  }

  // === Table ===

  #head() {
    const heads = [
      el("th", { scope: "col" }, "Service"), el("th", { scope: "col" }, "State"), el("th", { scope: "col" }, "Instances"), el("th.at", { scope: "col" }, "Address"),
      ...(this.hasTraffic
        ? [
            el("th.num.rate", { scope: "col" }, "Requests"), el("th.h-spark", { scope: "col" }, hiddenText("Requests over 5 minutes")),
            el("th.num.lat", { scope: "col" }, "p99"), el("th.num.errs", { scope: "col" }, "Failed"),
          ]
        : []),
      el("th.h-past", { scope: "col" }, "Last 15 min"),
      this.hasStack && el("th.do", { scope: "col" }, hiddenText("Actions")),
    ];
    return el("thead", el("tr", ...heads));
  }

  /** The rows that the filter shows. */
  #shown() {
    const filter = FILTERS.find(([name]) => name === this.#filter) ?? FILTERS[0];
    return this.app.sorted.filter((row) => filter[2](row) && this.#matches(row));
  }

  /** @param {Row} row */
  #matches(row) {
    if (!this.#query) return true;
    return [row.name, ...row.tags].some((word) => word.toLowerCase().includes(this.#query));
  }

  #filters() {
    const counts = FILTERS.map(([name, title, shows]) => ({ name, title, number: this.app.sorted.filter(shows).length }));
    const shown = counts.filter(({ name, number }) => !name || number || name === this.#filter);
    keyed(
      this.chips, shown, ({ name }) => name || "all",
      ({ name }) => el("button.chip", { onclick: () => address.setQuery({ show: name }) }),
      (chip, { name, title, number }) => {
        text(chip, `${title} ${number.toLocaleString("en")}`);
        attribute(chip, "aria-pressed", String(name === this.#filter));
      },
    );
    const query = this.#query;
    once(this.note, query, () => (query
      ? [el("button.chip", { "aria-pressed": "true", onclick: () => address.setQuery({ q: null }) }, `with “${query}”`, icon("close"), hiddenText("remove the filter"))]
      : ["Trouble first, then by name"]));
  }

  #rows() {
    const rows = this.#shown();
    this.none.hidden = rows.length > 0;
    const isLoading = Object.values(this.app.state.streams).every(({ state }) => state === "connecting" || state === "off");
    text(this.none, isLoading ? "Loading" : this.app.rows.size ? "No service matches." : "There is no service yet.");
    this.table.hidden = !rows.length;
    let first = 0;
    let last = rows.length;
    if (rows.length > MAX_ROWS) {
      const measured = this.body.firstElementChild?.getBoundingClientRect().height;
      if (measured) this.#height = measured;
      const head = /** @type {HTMLElement} */ (this.table.firstElementChild);
      const top = this.table.getBoundingClientRect().top + head.offsetHeight;
      first = Math.max(0, Math.floor(-top / this.#height) - OVERSCAN);
      last = Math.min(rows.length, Math.ceil((innerHeight - top) / this.#height) + OVERSCAN);
      first = Math.min(first, Math.max(0, last - 1));
    }
    this.#gap(this.above, first);
    this.#gap(this.below, rows.length - last);
    attribute(this.table, "aria-rowcount", rows.length > MAX_ROWS ? String(rows.length + 1) : null);
    const window = rows.slice(first, last);
    const held = hasSelection(this.body) || this.body.contains(document.activeElement);
    // A focused or selected row stays in the page even if it is scrolled away.
    if (held && rows.length > MAX_ROWS) {
      const current = rows.find((row) => row.name === this.#current());
      if (current && !window.includes(current)) window.push(current);
    }
    keyed(this.body, window, (row) => row.name, (row) => this.#makeRow(row), (line, row) => this.#drawRow(line, row));
  }

  /** @param {HTMLElement} gap @param {number} rows */
  #gap(gap, rows) {
    gap.hidden = rows <= 0;
    const cell = /** @type {HTMLElement} */ (gap.querySelector("td"));
    cell.style.height = `${Math.max(0, rows) * this.#height}px`;
  }

  /** @param {Row} row */
  #makeRow(row) {
    const { actions } = this.app;
    const name = row.name;
    /** @type {any} */
    const line = el("tr", { "data-name": name });
    const parts = {
      link: el("a", name), about: el("small"), state: el("td.state"), ins: el("td.ins"), at: el("td.at"), rate: el("td.num.rate"), spark: spark(),
      lat: el("td.num.lat"), errs: el("td.num.errs"), past: strip(), acts: el("div.acts"),
    };
    line._parts = parts;
    line.append(...[
      el("td.name", el("div.who", el("div", parts.link, parts.about))), parts.state, parts.ins, parts.at,
      ...(this.hasTraffic ? [parts.rate, el("td.h-spark", parts.spark), parts.lat, parts.errs] : []),
      el("td.h-past", parts.past),
      ...(this.hasStack ? [el("td.do", parts.acts)] : []),
    ]);
    line.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const target = /** @type {Element} */ (event.target);
      if (!target.closest("a, button") && !hasSelection(this.body)) address.go(this.#href(name));
    });
    if (row.canRestart) {
      const act = (/** @type {"restart" | "start" | "stop"} */ verb, /** @type {string} */ title, /** @type {(name: string) => void} */ run) =>
        el("button.btn.icon", { "aria-label": `${title} ${name}`, title: verb === "restart" ? "Restart (r)" : title, onclick: () => run(name) }, icon(verb));
      parts.acts.append(act("restart", "Restart", actions.restart));
      parts.acts.append(el("a.btn.icon", { "aria-label": `Log of ${name}`, title: "Log (l)", href: address.href(["logs"], { service: name }) }, icon("log")));
    }
    return line;
  }

  /** @param {any} line @param {Row} row */
  #drawRow(line, row) {
    const parts = line._parts;
    const { state } = this.app;
    attribute(line, "aria-current", row.name === this.#selected ? "true" : null);
    attribute(parts.link, "href", this.#href(row.name));
    if (line._row !== row) {
      line._row = row;
      text(parts.about, row.about);
      const { level, word, below, since } = row;
      once(parts.state, `${level} ${word} ${below} ${since}`, () => [
        status(level, word),
        level === "ok" ? since > 0 && el("small.muted", lasting(since, "")) : el("small.muted.below", { title: below }, below, since > 0 && lasting(since, below ? ", " : "since ")),
      ]);
      const bars = row.instances.slice(0, 8).map((instance) => instance.level);
      const number = row.wanted ? `${row.ready}/${row.wanted}` : "";
      once(parts.ins, `${bars} ${number}`, () => [el("span.inst", { "aria-hidden": "true" }, ...bars.map((level) => el(`i.${level}`))), el("span.muted.num", number)]);
      once(parts.at, `${row.address} ${row.url}`, () => [this.#address(row)]);
    }
    const now = Date.now() / 1000;
    const history = worstOf(row.instances.map((instance) => instance.history).filter((it) => it.length));
    drawStrip(parts.past, history, now);
    if (!this.hasTraffic) return;
    const traffic = measure(state, row.name);
    const isQuiet = !traffic.isKnown;
    once(parts.rate, isQuiet ? "" : rate(traffic.rate), () => (isQuiet ? [] : [rate(traffic.rate), el("span.muted", " /s")]));
    const latency = isQuiet || traffic.p99 == null ? "" : millis(traffic.p99);
    once(parts.lat, isQuiet ? "" : latency || "–", () => (isQuiet ? [] : latency ? [latency, el("span.muted", " ms")] : ["–"]));
    const share = isQuiet ? "" : traffic.share ? percent(traffic.share) : "0";
    once(parts.errs, share, () => (share ? [el("span", { class: share === "0" ? "muted" : traffic.share >= 0.05 ? "bad" : "warn" }, share)] : []));
    attribute(parts.spark, "hidden", isQuiet ? "" : null);
    if (!isQuiet) drawSpark(parts.spark, trafficOf(state, row.name)?.buckets ?? [], state.second);
  }

  /** @param {Row} row */
  #address(row) {
    if (!row.address && !row.url) return el("span.mono.muted", "–");
    const short = row.address.replace(/^(localhost|127\.0\.0\.1)(?=:)/, "");
    if (!row.url) return el("span.mono.muted", { title: row.address }, short);
    return external(row.url, short || "open", ` opens ${row.name}`);
  }
}
