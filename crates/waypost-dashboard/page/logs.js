// The logs of all services, merged: filters, search, follow, and one request across services.

import * as address from "./address.js";
import { attribute, clear, el, hiddenText, keyed, once, text } from "./dom.js";
import { byName, count, preciseClock } from "./format.js";
import { icon } from "./icons.js";
import { keyLine } from "./keys.js";
import { accessEntry, logLine } from "./lines.js";
import { searchField, status } from "./parts.js";

/** The number of lines in the page. */
const MAX_SHOWN = 350;
/** The number of services that have a chip; the others are in a list. */
const MAX_CHIPS = 5;

export class LogsView {
  title = "Logs";
  #services = /** @type {Set<string>} */ (new Set());
  #level = "";
  #query = "";
  #request = "";
  #isFollowing = true;
  /** Lines up to this id were cleared. */
  #cleared = -1;
  /** Where the list was scrolled to. */
  #scrolled = 0;

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.whose = el("div.chips", { role: "group", "aria-label": "Whose" });
    this.more = /** @type {HTMLSelectElement} */ (el("select.chip", { "aria-label": "Another service", onchange: () => this.#toggle(this.more.value, true) }));
    this.levels = el("div.chips", { role: "group", "aria-label": "Level" });
    this.search = searchField("Search");
    this.restart = el("button.btn", { onclick: () => this.#restart() }, icon("restart"), el("span", "Restart"));
    this.follow = el("button.btn", { onclick: () => this.#setFollowing(!this.#isFollowing) }, "Follow");
    this.list = el("ol.log", { tabindex: "0", "aria-label": "Lines of all services, oldest first" });
    this.list.addEventListener("scroll", () => {
      const isAtEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 30;
      const isBack = this.list.scrollTop < this.#scrolled - 4;
      this.#scrolled = this.list.scrollTop;
      // Scrolling back pauses; scrolling to the end resumes.
      if (this.#isFollowing ? isBack && !isAtEnd : isAtEnd) this.#setFollowing(isAtEnd);
    }, { passive: true });
    this.status = el("p.log-status.muted", { role: "status" });
    this.request = el("section.card", { "aria-labelledby": "t-one", hidden: true });
    const card = el(
      "section.card.logs-card", { "aria-label": "Logs" },
      el(
        "div.bar", el("h2", "Logs"), this.whose, this.levels,
        el("label.find.small", icon("find"), this.search),
        el("div.acts", el("button.btn", { onclick: () => this.#clear() }, "Clear"), this.restart, this.follow),
      ),
      this.list, this.status,
    );
    const foot = keyLine([[["/"], "search"], [["e"], "errors only"], [["f"], "follow"], [["c"], "clear the view"], [["r"], "restart"]]);
    foot.append(el("span", "The address contains the filter, so you can share it."));
    this.element = el("div.main.logs", el("h1.sr", "Logs"), card, this.request, foot);
  }

  /** @param {address.Address} where */
  show({ query }) {
    this.#services = new Set((query.get("service") ?? "").split(",").filter(Boolean));
    this.#level = query.get("level") ?? "";
    this.#query = (query.get("q") ?? "").toLowerCase();
    this.#request = query.get("request") ?? "";
    if (document.activeElement !== this.search) this.search.value = query.get("q") ?? "";
    this.app.store.wantLogs(true);
    clear(this.list);
    this.#scrolled = 0;
    attribute(this.follow, "aria-pressed", String(this.#isFollowing));
    this.follow.classList.toggle("go", this.#isFollowing);
  }

  hide() {
    this.app.store.wantLogs(false);
  }

  /** @param {import("./store.js").Changes} changes */
  update(changes) {
    if (changes.all || changes.lines || changes.streams) this.#draw();
    else if (changes.services.size) this.#chips();
  }

  tick() {}

  /** @param {string} key */
  key(key) {
    switch (key) {
      case "/":
        this.search.focus();
        this.search.select();
        return true;
      case "e":
        address.setQuery({ level: this.#level === "error" ? null : "error" });
        return true;
      case "f":
        this.#setFollowing(!this.#isFollowing);
        return true;
      case "c":
        this.#clear();
        return true;
      case "r":
        this.#restart();
        return true;
      case "Escape":
        if (this.#request) address.setQuery({ request: null });
        else this.search.blur();
        return true;
    }
    return false;
  }

  // === Filters ===

  /** @param {string} service @param {boolean} [add] */
  #toggle(service, add) {
    const services = new Set(this.#services);
    if (services.has(service) && !add) services.delete(service);
    else services.add(service);
    address.setQuery({ service: service ? [...services].filter(Boolean).join(",") : null });
  }

  #chips() {
    const { lines } = this.app.state;
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const name of this.app.state.services.keys()) counts.set(name, 0);
    for (const { service, level } of lines) counts.set(service, (counts.get(service) ?? 0) + (level === "error" ? 1 : 0));
    // Those with errors first.
    const names = [...counts].sort((a, b) => b[1] - a[1] || byName(a[0], b[0])).map(([name]) => name);
    const first = [...new Set([...this.#services, ...names])].slice(0, Math.max(MAX_CHIPS, this.#services.size));
    const others = names.filter((name) => !first.includes(name));
    keyed(
      this.whose, ["", ...first, ...(others.length ? ["…"] : [])], (name) => name || "all",
      (name) => (name === "…" ? this.more : el("button.chip", { onclick: () => this.#toggle(name) }, name || "All")),
      (chip, name) => {
        if (name === "…") {
          once(chip, others.join(), () => [el("option", { value: "" }, `+ ${others.length}`), ...others.sort(byName).map((other) => el("option", other))]);
        } else attribute(chip, "aria-pressed", String(name ? this.#services.has(name) : !this.#services.size));
      },
    );
    const levels = /** @type {[string, string, string][]} */ ([["error", "Error", "bad"], ["warn", "Warn", "warn"]]);
    const ofService = lines.filter((line) => line.id > this.#cleared && (!this.#services.size || this.#services.has(line.service)));
    keyed(
      this.levels, levels, ([level]) => level,
      ([level, , css]) => el("button.chip", { onclick: () => address.setQuery({ level: this.#level === level ? null : level }) }, el(`span.${css}`)),
      (chip, [level, title]) => {
        text(chip.firstChild, `${title} ${ofService.filter((line) => line.level === level).length}`);
        attribute(chip, "aria-pressed", String(this.#level === level));
      },
    );
    const target = this.#restartTarget();
    text(/** @type {Node} */ (this.restart.lastChild), target ? `Restart ${target}` : "Restart");
    attribute(this.restart, "disabled", target ? null : "");
    attribute(this.restart, "title", target ? "Restart (r)" : "Choose one service to restart it");
  }

  #restartTarget() {
    const [only, ...others] = this.#services;
    return only && !others.length && this.app.rows.get(only)?.canRestart ? only : "";
  }

  #restart() {
    const target = this.#restartTarget();
    if (target) this.app.actions.restart(target);
  }

  #clear() {
    this.#cleared = this.app.state.lines.at(-1)?.id ?? -1;
    this.#draw();
  }

  /** @param {boolean} following */
  #setFollowing(following) {
    this.#isFollowing = following;
    text(this.follow, following ? "Following" : "Follow");
    attribute(this.follow, "aria-pressed", String(following));
    this.follow.classList.toggle("go", following);
    if (following) this.#draw();
  }

  // === Lines ===

  /** @param {import("./types.d.ts").LogLine} line */
  #matches(line) {
    if (line.id <= this.#cleared) return false;
    if (this.#services.size && !this.#services.has(line.service)) return false;
    if (this.#request && !line.text.includes(this.#request)) return false;
    if (this.#level === "error" && line.level !== "error") return false;
    if (this.#level === "warn" && line.level !== "error" && line.level !== "warn") return false;
    return !this.#query || line.text.toLowerCase().includes(this.#query) || line.instance.toLowerCase().includes(this.#query);
  }

  #draw() {
    this.#chips();
    this.#drawRequest();
    text(this.follow, this.#isFollowing ? "Following" : "Follow");
    const matching = this.app.state.lines.filter((line) => this.#matches(line));
    // While the user reads, no lines above are removed.
    const held = !this.#isFollowing && this.list.children.length ? Number(/** @type {any} */ (this.list.firstElementChild)._item) : 0;
    const from = held ? Math.max(0, matching.findIndex((line) => line.id >= held)) : Math.max(0, matching.length - MAX_SHOWN);
    const shown = matching.slice(from, from + MAX_SHOWN);
    keyed(this.list, shown, (line) => String(line.id), (line) => logLine(line, { query: this.#query }), () => {});
    if (this.#isFollowing) this.list.scrollTop = this.list.scrollHeight;
    const below = matching.length - from - shown.length;
    const { logs } = this.app.state.streams;
    const filtered = this.#services.size || this.#level || this.#query || this.#request;
    text(this.status, [
      !matching.length ? (logs.state === "live" ? (filtered ? "No line matches." : "No line yet.") : logs.error ? `The log can’t be read: ${logs.error}` : "Loading") : "",
      from > 0 && matching.length ? `${count(from, "earlier line")} not shown` : "",
      below > 0 ? `${count(below, "newer line")} below: press f to follow` : "",
    ].filter(Boolean).join(" · "));
    this.status.hidden = !this.status.textContent;
  }

  // === One request ===

  /** What the gateway logged of one request, as bars on one scale. */
  #drawRequest() {
    this.request.hidden = !this.#request;
    if (!this.#request) return;
    const entries = this.app.state.lines.filter((line) => line.text.includes(this.#request)).map((line) => ({ line, entry: accessEntry(line) })).filter(({ entry }) => entry);
    const spans = entries.map(({ line, entry }) => {
      const fields = /** @type {Record<string, string>} */ (/** @type {unknown} */ (entry));
      const lasted = Number(fields.duration_ms) || 0;
      const end = Date.parse(line.time);
      return { name: fields.instance || fields.route || line.service, via: line.service, fields, lasted, start: end - lasted, end };
    });
    spans.sort((a, b) => a.start - b.start || b.lasted - a.lasted);
    once(this.request, `${this.#request} ${spans.length}`, () => {
      const first = spans[0];
      const start = first ? Math.min(...spans.map((span) => span.start)) : 0;
      const whole = first ? Math.max(1, Math.max(...spans.map((span) => span.end)) - start) : 1;
      return [
        el(
          "div.bar", el("h2", { id: "t-one" }, "One request"),
          el("span.muted", first ? el("code", `${first.fields.method} ${first.fields.path}`) : "", first ? ` ${first.fields.status ?? ""} in ${first.lasted} ms · ` : "", el("code", `request_id ${this.#request}`)),
          el("span.end", "From the access log"),
          el("button.btn.icon", { "aria-label": "Show all lines", onclick: () => address.setQuery({ request: null }) }, icon("close")),
        ),
        spans.length
          ? el("ol.fall", ...spans.map((span) => {
              const level = Number(span.fields.status) >= 500 ? "bad" : "ok";
              const bar = el(`i.${level}`);
              bar.style.setProperty("--from", `${(((span.start - start) / whole) * 100).toFixed(1)}%`);
              bar.style.setProperty("--for", `${((span.lasted / whole) * 100).toFixed(1)}%`);
              const result = [span.fields.status, `${span.lasted} ms`, Number(span.fields.attempts) > 1 ? `${span.fields.attempts} attempts` : "", span.fields.cause].filter(Boolean).join(", ");
              return el("li", el("span", status(level, span.name)), el("span.track", { title: `from ${preciseClock(span.start)}` }, bar), el("span", { class: level === "bad" ? "bad" : "muted" }, result, hiddenText(`, ${span.lasted} milliseconds`)));
            }))
          : el("p.nothing", "The access log has no request with this id yet. The lines above contain the id."),
      ];
    });
  }
}
