// The start of the page: its frame, its views, and the behaviour that all views share.

import { Actions, takeToken } from "./actions.js";
import * as address from "./address.js";
import { AddView } from "./add.js";
import { attribute, byId, el, hiddenText, once, text } from "./dom.js";
import { clock, duration, exact } from "./format.js";
import { icon } from "./icons.js";
import { showKeys } from "./keys.js";
import { LogsView } from "./logs.js";
import { MapView } from "./map.js";
import { rowOf, serviceNames, sortRows, stackName } from "./model.js";
import { Palette } from "./palette.js";
import { RegistryView } from "./registry.js";
import { ServicesView } from "./services.js";
import { Store } from "./store.js";

/**
 * @typedef {import("./types.d.ts").Row} Row
 * @typedef {import("./store.js").Changes} Changes
 * @typedef {object} View
 * @property {string} title
 * @property {HTMLElement} element
 * @property {(address: address.Address) => void} show called when it appears and when its address changes
 * @property {(changes: Changes) => void} update
 * @property {(now: number) => void} tick called once a second
 * @property {(key: string) => boolean} key handles a key; returns false if the view doesn't use it
 * @property {() => void} [hide]
 */

/** A lost connection is reported after this time, so that a short break goes unnoticed. */
const OUTAGE_AFTER_MS = 700;
const EVERYTHING = { all: true, services: new Set(), streams: true, second: true, lines: true };

export class App {
  /** The rows of all services. @type {Map<string, Row>} */
  rows = new Map();
  /** @type {Row[]} */
  #sorted = [];
  /** @type {View | null} */
  #view = null;
  #isStale = false;
  /** @type {Map<string, number>} */
  #ranks = new Map();

  constructor() {
    takeToken();
    const meta = /** @type {HTMLMetaElement} */ (document.querySelector('meta[name="waypost-sources"]'));
    /** @type {import("./types.d.ts").Sources} */
    this.sources = JSON.parse(meta.content);
    this.store = new Store(this.sources);
    this.actions = new Actions(this.store);
    const { stack, registry, traffic } = this.sources;
    /** @type {Map<string, () => View>} */
    this.views = new Map();
    this.views.set("services", () => new ServicesView(this));
    if (stack) this.views.set("logs", () => new LogsView(this));
    if (traffic || stack) this.views.set("map", () => new MapView(this));
    if (registry) this.views.set("registry", () => new RegistryView(this));
    if (stack || registry) this.views.set("add", () => new AddView(this));
    this.start = [...this.views.keys()][0] ?? "";
    /** @type {Map<string, View>} */
    this.made = new Map();
    this.palette = new Palette(this);
    this.#frame();
    address.interceptLinks([...this.views.keys()]);
    address.onNavigate(() => this.#navigate());
    document.addEventListener("keydown", (event) => this.#key(event));
    this.store.subscribe((changes) => this.#update(changes));
    this.#navigate();
    this.#tick();
  }

  get state() {
    return this.store.state;
  }

  /** All rows, trouble first. */
  get sorted() {
    return this.#sorted;
  }

  /** The rows that need attention. */
  get needs() {
    return this.#sorted.filter((row) => row.need);
  }

  // === Frame ===

  #frame() {
    const titles = /** @type {Record<string, string>} */ ({ services: "Services", logs: "Logs", map: "Map", registry: "Registry" });
    const icons = /** @type {Record<string, any>} */ ({ services: "services", logs: "log", map: "map", registry: "registry" });
    const shown = [...this.views.keys()].filter((name) => titles[name]);
    const link = (/** @type {string} */ name) => address.href(name === this.start ? [] : [name]);
    byId("views").append(...shown.map((name) => el("a", { href: link(name), "data-view": name }, titles[name])));
    byId("dock").append(...shown.map((name) => el("a", { href: link(name), "data-view": name }, icon(icons[name]), titles[name])));
    byId("dock").style.setProperty("--views", String(shown.length));
    const live = byId("live");
    if (this.sources.registry) live.before(el("a.btn.add", { href: "add" }, "Add a service"));
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault();
      byId("main").focus();
    });
  }

  #navigate() {
    const where = address.current();
    const name = this.views.has(where.view) ? where.view : this.start;
    let view = this.made.get(name);
    if (!view) this.made.set(name, (view = /** @type {() => View} */ (this.views.get(name))()));
    if (view !== this.#view) {
      this.#view?.hide?.();
      this.#view = view;
      byId("main").replaceChildren(view.element);
      window.scrollTo(0, 0);
    }
    for (const link of document.querySelectorAll("[data-view]")) {
      attribute(link, "aria-current", /** @type {HTMLElement} */ (link).dataset.view === name ? "page" : null);
    }
    view.show(where);
    view.update(EVERYTHING);
    this.#title();
  }

  /** @param {Changes} changes */
  #update(changes) {
    const changed = changes.all || changes.streams || (changes.second && !this.sources.stack && !this.sources.registry) ? serviceNames(this.state) : new Set([...changes.services].map((name) => stackName(this.state, name) ?? name));
    if (changes.all) {
      for (const name of this.rows.keys()) if (!(/** @type {Set<string>} */ (changed).has(name))) this.rows.delete(name);
    }
    for (const name of changed) {
      const row = rowOf(this.state, name);
      if (row) this.rows.set(name, row);
      else this.rows.delete(name);
    }
    if (changed.size || changes.all) this.#sorted = sortRows(this.rows, this.#ranks);
    this.#bars();
    this.#view?.update(changes);
    this.#title();
  }

  #tick() {
    const step = () => {
      if (!document.hidden) {
        this.#bars();
        this.#title();
        this.#view?.tick(Date.now());
      }
      setTimeout(step, 1000 - (Date.now() % 1000));
    };
    setTimeout(step, 1000);
    document.addEventListener("visibilitychange", () => !document.hidden && this.#view?.tick(Date.now()));
  }

  // === Connection ===

  /** Shows what can't be reached and how old the data is, and asks for a token if one is required. */
  #bars() {
    const { streams } = this.state;
    const now = Date.now();
    const lost = /** @type {const} */ (["stack", "registry"]).filter((name) => streams[name].state === "lost" && now - streams[name].since > OUTAGE_AFTER_MS);
    const denied = streams.registry.state === "denied";
    this.#isStale = lost.length > 0;
    document.body.classList.toggle("stale", this.#isStale);
    const bars = byId("bars");
    once(bars, [...lost, denied && "denied"].join(), () => [
      ...lost.map((name) => el("div.outage", { role: "status", "data-source": name }, el("strong"), el("span"), el("span.age"))),
      denied && this.#tokenForm(),
    ]);
    for (const name of lost) {
      const [what, why, age] = /** @type {HTMLElement} */ (bars.querySelector(`[data-source="${name}"]`)).children;
      const whatIs = name === "registry" ? "The registry can’t be reached" : "Nothing answers at this address";
      text(what, whatIs);
      text(why, streams[name].error);
      const known = this.rows.size ? `Shown as it was ${duration(now - streams[name].since)} ago, at ${clock(streams[name].since)}` : `For ${duration(now - streams[name].since)}`;
      text(age, known);
      attribute(age, "title", exact(streams[name].since));
    }
    if (denied) text(byId("token-error"), this.store.token ? `The token was rejected: ${streams.registry.error}.` : "");
    const live = byId("live");
    const main = this.sources.stack ? streams.stack : this.sources.registry ? streams.registry : streams.traffic;
    const state = lost.length ? "lost" : main.state;
    live.dataset.state = state;
    const words = { live: "Live", lost: "Not live", denied: "Token needed", connecting: "Connecting", off: "Connecting" };
    once(live, state, () => [el("span", words[state]), hiddenText(this.sources.registry ? " from the registry" : "")]);
    const name = this.sources.name ?? this.state.stack?.name ?? this.state.datacenter;
    byId("stack").hidden = !name;
    once(byId("stack"), name, () => [el("b", name)]);
  }

  #tokenForm() {
    const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
    return el(
      "form",
      {
        class: "outage", id: "token-form",
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          this.store.setToken(/** @type {HTMLInputElement} */ (input).value);
        },
      },
      el("label", { for: "token" }, "This registry requires a token"), input, el("button.btn.go", "Show services"), el("span", { id: "token-error", role: "alert" }),
    );
  }

  /** Shows in the title and the icon how many services need attention. */
  #title() {
    const needs = this.needs.length;
    const name = this.sources.name ?? this.state.stack?.name ?? this.state.datacenter;
    const first = this.#isStale ? "registry down" : needs ? `${needs} need you` : this.#view?.title ?? "";
    document.title = [first, name, "Waypost"].filter(Boolean).join(" · ");
    const mark = this.#isStale ? "!" : needs > 9 ? "9+" : String(needs || "");
    const link = /** @type {HTMLLinkElement & {_mark?: string, _href?: string}} */ (document.querySelector('link[rel="icon"]'));
    link._href ??= link.href;
    if ((link._mark ?? "") === mark) return;
    link._mark = mark;
    const badge = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><circle cx="20" cy="20" r="20" fill="#b3241c"/><text x="20" y="29" font-size="25" font-weight="700" text-anchor="middle" fill="#fff">${mark}</text></svg>`;
    link.href = mark ? `data:image/svg+xml,${encodeURIComponent(badge)}` : link._href;
  }

  // === Keyboard ===

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (document.querySelector("dialog[open]")) return;
    if (target.closest("input, textarea, select") && event.key !== "Escape") return;
    const handled = this.#view?.key(event.key) || this.#globalKey(event.key);
    if (handled) event.preventDefault();
  }

  /** @param {string} key */
  #globalKey(key) {
    switch (key) {
      case "/":
        this.palette.focus();
        return true;
      case "s":
        address.go("./");
        return true;
      case "m":
        if (this.views.has("map")) address.go("map");
        return true;
      case "?":
        showKeys(this.sources);
        return true;
    }
    return false;
  }
}
