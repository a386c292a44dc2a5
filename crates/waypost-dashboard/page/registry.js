// The contents of the registry: instances, keys, DNS names and nodes.

import * as address from "./address.js";
import { ask, copy, toast } from "./actions.js";
import { attribute, clear, el, hiddenText, keyed, once, text } from "./dom.js";
import { byName } from "./format.js";
import { icon, sign } from "./icons.js";
import { problem } from "./sse.js";

/**
 * @typedef {import("./types.d.ts").Level} Level
 * @typedef {{ Key: string, Value: string | null, ModifyIndex: number, Session?: string }} Entry
 */

const PARTS = /** @type {[string, string][]} */ ([["instances", "Instances"], ["keys", "Keys"], ["dns", "DNS"], ["nodes", "Nodes"]]);
const LEVELS = /** @type {Record<string, Level>} */ ({ passing: "ok", warning: "warn", critical: "bad" });
/** The number of rows in the page. */
const MAX_ROWS = 100;
/** The maximum length in bytes of a value that can be edited here. */
const MAX_VALUE = 64 * 1024;

export class RegistryView {
  title = "Registry";
  #part = "instances";
  #key = "";
  #query = "";
  /** @type {string[] | null} */
  #keys = null;
  /** @type {Entry | null} */
  #entry = null;
  /** @type {any[] | null} */
  #nodes = null;
  #dnsPort = 0;
  #error = "";

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.api = /** @type {string} */ (app.sources.registry);
    this.chips = el("nav", { class: "chips", "aria-label": "What" });
    this.where = el("span", { class: "end" });
    this.search = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: "Filter", "aria-label": "Filter", spellcheck: "false", autocomplete: "off", oninput: () => address.setQuery({ q: this.search.value.trim() || null }) }));
    this.content = el("div", { class: "registry-content" });
    this.element = el(
      "div", { class: "main" }, el("h1", { class: "sr" }, "Registry"),
      el("section", { class: "card", "aria-label": "Registry" }, el("div", { class: "bar" }, el("h2", {}, "Registry"), this.chips, el("label", { class: "find small" }, icon("find"), this.search), this.where), this.content),
    );
  }

  /** @param {address.Address} where */
  show({ rest, query }) {
    const [part = "instances", ...key] = rest;
    const name = key.join("/");
    const isNew = part !== this.#part || name !== this.#key;
    this.#part = PARTS.some(([known]) => known === part) ? part : "instances";
    this.#key = name;
    this.#query = (query.get("q") ?? "").toLowerCase();
    if (document.activeElement !== this.search) this.search.value = query.get("q") ?? "";
    if (isNew) {
      clear(this.content);
      this.#entry = null;
    }
    this.#load();
  }

  /** @param {import("./store.js").Changes} changes */
  update(changes) {
    if (changes.all || changes.services.size || changes.links) this.#draw();
  }

  tick() {}

  /** @param {string} key */
  key(key) {
    if (key === "Escape") this.search.blur();
    return false;
  }

  // === Data ===

  async #load() {
    const { actions } = this.app;
    try {
      if (this.#part === "keys") {
        this.#keys = (await actions.json(`${this.api}kv/?keys`)) ?? [];
        if (this.#key) {
          const entries = await actions.json(`${this.api}kv/${keyPath(this.#key)}`);
          this.#entry = entries?.[0] ?? null;
        }
      } else if (this.#part === "nodes") this.#nodes = await actions.json(`${this.api}catalog/nodes`);
      else if (this.#part === "dns") {
        const self = await actions.json(`${this.api}agent/self`);
        this.#dnsPort = Number(self?.DebugConfig?.DNSPort ?? 0);
      }
      this.#keys ??= (await actions.json(`${this.api}kv/?keys`)) ?? [];
      this.#error = "";
    } catch (error) {
      this.#error = /** @type {Error} */ (error).message;
    }
    this.#draw();
  }

  /** The URL of the registry as a program on this machine reaches it. */
  get #url() {
    const base = this.app.state.stack?.registry;
    return base ? `${base.replace(/\/$/, "")}/v1/` : new URL(this.api, document.baseURI).href;
  }

  // === Drawing ===

  #draw() {
    const instances = [...this.app.state.registry.values()].reduce((sum, service) => sum + service.instances.length, 0);
    const counts = /** @type {Record<string, number | undefined>} */ ({ instances, keys: this.#keys?.length, nodes: this.#nodes?.length });
    keyed(this.chips, PARTS, ([part]) => part, ([part]) => el("a", { class: "chip", href: address.href(["registry", ...(part === "instances" ? [] : [part])]) }), (chip, [part, title]) => {
      text(chip, counts[part] === undefined ? title : `${title} ${counts[part]?.toLocaleString("en")}`);
      attribute(chip, "aria-current", part === this.#part ? "page" : null);
    });
    const kind = this.app.sources.registryKind ?? "";
    text(this.where, [kind, new URL(this.#url).host, "Consul’s API"].filter(Boolean).join(" · "));
    if (this.#error) once(this.content, `error ${this.#error}`, () => [el("p", { class: "nothing" }, `This can’t be read: ${this.#error}`)]);
    else if (this.#part === "keys") this.#drawKeys();
    else if (this.#part === "dns") this.#drawNames();
    else if (this.#part === "nodes") this.#drawNodes();
    else this.#drawInstances();
  }

  /** A table that scrolls sideways on a narrow screen. @param {string} label @param {string[]} heads @returns {HTMLElement} */
  #table(label, heads) {
    let table = /** @type {HTMLElement | null} */ (this.content.querySelector(`table[aria-label="${label}"]`));
    if (!table) {
      table = el("table", { "aria-label": label, class: "plain" }, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody"));
      clear(this.content);
      this.content.append(el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, table), el("p", { class: "nothing" }));
    }
    return table;
  }

  /** @param {number} shown @param {number} all @param {string} none */
  #note(shown, all, none) {
    const note = /** @type {HTMLElement} */ (this.content.querySelector(".nothing"));
    text(note, all ? (shown < all ? `${shown} of ${all.toLocaleString("en")} shown; filter to see the others` : "") : none);
    note.hidden = !note.textContent;
  }

  #drawInstances() {
    const table = this.#table("Instances", ["Service", "Instance", "Address", "Node", "Tags", "Metadata", "Copy"]);
    const all = [...this.app.state.registry.values()].flatMap((service) => service.instances.map((instance) => ({ service: service.name, instance })));
    const found = all.filter(({ service, instance }) => this.#matches([service, instance.id, instance.address, instance.node, ...instance.tags, ...Object.entries(instance.meta).flat()]));
    found.sort((a, b) => byName(a.service, b.service) || byName(a.instance.id, b.instance.id));
    const shown = found.slice(0, MAX_ROWS);
    keyed(
      /** @type {Element} */ (table.querySelector("tbody")), shown, ({ instance }) => `${instance.node}/${instance.id}`,
      () => el("tr", {}, ...Array.from({ length: 7 }, () => el("td"))),
      (line, { service, instance }) => once(line, JSON.stringify([service, { ...instance, history: 0, why: 0 }]), () => {
        const level = LEVELS[instance.status];
        const tags = instance.tags.map((tag) => el("span", { class: "tag" }, tag));
        const meta = Object.entries(instance.meta).map(([name, value]) => el("span", { class: "tag mono" }, `${name}=${value}`));
        const command = `curl ${this.#url}health/service/${encodeURIComponent(service)}`;
        return [
          el("td", {}, service === "consul" ? service : el("a", { class: "strong", href: address.href(["services", service]) }, service)),
          el("td", {}, el("span", { class: `st ${level}`, title: instance.status }, sign(level), instance.id, hiddenText(instance.status))),
          el("td", { class: "mono" }, `${instance.address}:${instance.port}`), el("td", { class: "muted" }, instance.node), el("td", {}, el("div", { class: "tags" }, ...tags)), el("td", {}, el("div", { class: "tags" }, ...meta)),
          el("td", {}, this.#curl(command, service)),
        ];
      }),
    );
    this.#note(shown.length, found.length, this.#query ? "No instance matches." : "No instance is registered.");
  }

  /** @param {string} command @param {string} what */
  #curl(command, what) {
    return el("button", { class: "btn small-btn", title: command, onclick: () => copy(command) }, icon("copy"), "curl", hiddenText(`: copy the command for ${what}`));
  }

  /** @param {string[]} words */
  #matches(words) {
    return !this.#query || words.some((word) => word.toLowerCase().includes(this.#query));
  }

  // === Keys ===

  #drawKeys() {
    const keys = this.#keys;
    if (!keys) {
      once(this.content, "loading", () => [el("p", { class: "nothing" }, "Loading")]);
      return;
    }
    if (!this.content.querySelector(".two")) {
      clear(this.content);
      this.content.append(el(
        "div", { class: "two" },
        el("nav", { class: "keys-list", "aria-label": "Keys" }, el("ul"), el("p", { class: "muted small none" }), el("button", { class: "btn", onclick: () => this.#newKey() }, icon("scale"), "New key")),
        el("div", { class: "entry" }),
      ));
    }
    const [list, none] = /** @type {any} */ (this.content.querySelector(".keys-list")).children;
    const shown = keys.filter((key) => this.#matches([key]));
    keyed(list, shown.slice(0, MAX_ROWS * 3), (key) => key, (key) => el("li", {}, el("a", { href: keyHref(key) }, key)), (line, key) => attribute(line.firstChild, "aria-current", key === this.#key ? "true" : null));
    text(none, shown.length > MAX_ROWS * 3 ? `${shown.length - MAX_ROWS * 3} more; filter to see them` : shown.length ? "" : this.#query ? "No key matches." : "No key is stored.");
    none.hidden = !none.textContent;
    this.#drawEntry(/** @type {HTMLElement} */ (this.content.querySelector(".entry")), keys.includes(this.#key));
  }

  /** @param {HTMLElement} section @param {boolean} exists */
  #drawEntry(section, exists) {
    const entry = this.#entry;
    if (!this.#key) {
      once(section, "none", () => [el("p", { class: "muted" }, this.#keys?.length ? "Choose a key." : "Configuration that several services share can be stored here.")]);
      return;
    }
    if (exists && entry?.Key !== this.#key) {
      once(section, `loading ${this.#key}`, () => [el("p", { class: "muted" }, "Loading")]);
      return;
    }
    // A value that is being edited isn't replaced: saving detects that it has been changed meanwhile.
    const field = section.querySelector("textarea");
    if (field && field.dataset.key === this.#key && field.value !== field.defaultValue && entry) return;
    once(section, `${this.#key} ${entry?.ModifyIndex}`, () => this.#editor(entry));
  }

  /** @param {Entry | null} entry */
  #editor(entry) {
    const value = decodeValue(entry?.Value ?? null);
    const key = this.#key;
    const title = el("label", { for: "kv" }, el("b", { class: "mono" }, key), " ", el("span", { class: "muted" }, entry ? `· change ${entry.ModifyIndex}${entry.Session ? " · locked by a session" : ""}` : "· new"));
    const get = `curl ${this.#url}kv/${keyPath(key)}?raw`;
    const acts = (/** @type {HTMLTextAreaElement | null} */ field) => el(
      "div", { class: "acts" },
      field && el("button", { class: "btn go", onclick: () => this.#save(field, entry?.ModifyIndex ?? 0) }, entry ? "Save if unchanged" : "Create"),
      entry && this.#curl(get, key), entry && el("button", { class: "btn", onclick: () => this.#delete(key, entry.ModifyIndex) }, "Delete…"),
    );
    if (value === null) return [el("p", {}, el("b", { class: "mono" }, key), " ", el("span", { class: "muted" }, "· a value that isn’t text, or is too long to be edited here")), acts(null)];
    const field = /** @type {HTMLTextAreaElement} */ (el("textarea", { id: "kv", spellcheck: "false", "data-key": key }));
    field.defaultValue = value;
    return [title, field, acts(field)];
  }

  async #newKey() {
    const key = await ask({ title: "New key", yes: "Continue", field: { label: "Key, with slashes as in a path", value: "" } });
    if (key) address.go(keyHref(key.replace(/^\/+/, "")));
  }

  /** @param {HTMLTextAreaElement} field @param {number} index */
  async #save(field, index) {
    const key = this.#key;
    const response = await this.app.actions.request(`${this.api}kv/${keyPath(key)}?cas=${index}`, { method: "PUT", body: field.value }).catch(() => null);
    if (!response?.ok) toast(`Can’t save ${key}: ${response ? await problem(response) : "no connection"}`, "bad");
    else if ((await response.text()).trim() === "true") {
      toast(`Saved ${key}`);
      field.defaultValue = field.value;
    } else {
      const overwrite = await ask({ title: `${key} was changed meanwhile`, text: "Your text is kept until you load the new value.", yes: "Load the new value" });
      if (overwrite !== null) field.defaultValue = field.value;
    }
    await this.#load();
  }

  /** @param {string} key @param {number} index */
  async #delete(key, index) {
    const sure = await ask({ title: `Delete ${key}?`, text: "It is deleted only if it hasn’t been changed meanwhile.", yes: "Delete" });
    if (sure === null) return;
    const response = await this.app.actions.request(`${this.api}kv/${keyPath(key)}?cas=${index}`, { method: "DELETE" }).catch(() => null);
    if (!response?.ok) toast(`Can’t delete ${key}: ${response ? await problem(response) : "no connection"}`, "bad");
    else if ((await response.text()).trim() === "true") {
      toast(`Deleted ${key}`);
      address.go(address.href(["registry", "keys"]));
    } else toast(`${key} was changed meanwhile, and is kept`, "bad");
    await this.#load();
  }

  // === DNS and nodes ===

  #drawNames() {
    const table = this.#table("Names in DNS", ["Name", "Gives", "Try it"]);
    const { state } = this.app;
    const names = [...state.registry.values()].flatMap((service) => [
      { name: `${service.name}.service.consul`, gives: `A, SRV: ${service.instances.filter((it) => it.status !== "critical").length} of ${service.instances.length}`, type: "SRV" },
      ...service.tags.slice(0, 4).map((tag) => ({ name: `${tag}.${service.name}.service.consul`, gives: `instances with the tag ${tag}`, type: "SRV" })),
    ]);
    const found = names.filter(({ name }) => this.#matches([name]));
    const shown = found.slice(0, MAX_ROWS);
    const port = this.#dnsPort > 0 ? this.#dnsPort : 8600;
    keyed(/** @type {Element} */ (table.querySelector("tbody")), shown, ({ name }) => name, () => el("tr"), (line, { name, gives, type }) => once(line, `${gives} ${port}`, () => {
      const command = `dig @127.0.0.1 -p ${port} ${name} ${type}`;
      return [el("td", { class: "mono" }, name), el("td", { class: "muted" }, gives), el("td", {}, el("code", {}, command), " ", el("button", { class: "btn small-btn", onclick: () => copy(command) }, icon("copy"), "Copy", hiddenText(` ${command}`)))];
    }));
    this.#note(shown.length, found.length, "No name matches.");
    if (this.#dnsPort < 1) {
      const note = /** @type {HTMLElement} */ (this.content.querySelector(".nothing"));
      note.hidden = false;
      text(note, "This registry doesn’t answer DNS now. The embedded one does with “waypost agent --dns-port 8600”.");
    }
  }

  #drawNodes() {
    const nodes = (this.#nodes ?? []).filter((node) => this.#matches([node.Node, node.Address, ...Object.entries(node.Meta ?? {}).flat()]));
    const table = this.#table("Nodes", ["Node", "Address", "Datacenter", "Instances", "Metadata", "Id"]);
    const { registry } = this.app.state;
    const counts = new Map();
    for (const service of registry.values()) for (const instance of service.instances) counts.set(instance.node, (counts.get(instance.node) ?? 0) + 1);
    const shown = nodes.slice(0, MAX_ROWS);
    keyed(/** @type {Element} */ (table.querySelector("tbody")), shown, (node) => node.Node, () => el("tr"), (line, node) => once(line, JSON.stringify([node, counts.get(node.Node)]), () => {
      const meta = Object.entries(node.Meta ?? {}).map(([name, value]) => el("span", { class: "tag mono" }, `${name}=${value}`));
      return [el("td", { class: "strong" }, node.Node), el("td", { class: "mono" }, node.Address), el("td", {}, node.Datacenter), el("td", {}, String(counts.get(node.Node) ?? 0)), el("td", {}, el("div", { class: "tags" }, ...meta)), el("td", { class: "mono muted" }, node.ID)];
    }));
    this.#note(shown.length, nodes.length, this.#nodes ? "No node matches." : "Loading");
  }
}

/** @param {string} key */
const keyPath = (key) => key.split("/").map(encodeURIComponent).join("/");
/** @param {string} key */
const keyHref = (key) => `${address.href(["registry", "keys"])}/${keyPath(key)}`;

/** The text of a value; null if it isn't text or is too long. @param {string | null} value in base64 */
function decodeValue(value) {
  if (!value) return "";
  if (value.length > (MAX_VALUE * 4) / 3) return null;
  const bytes = Uint8Array.from(atob(value), (character) => character.charCodeAt(0));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}
