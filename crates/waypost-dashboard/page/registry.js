// The contents of the registry: instances, keys, DNS names and nodes.

import * as address from "./address.js";
import { ask, toast } from "./actions.js";
import { attribute, clear, el, hiddenText, keyed, once, text } from "./dom.js";
import { byName } from "./format.js";
import { LEVELS, icon } from "./icons.js";
import { copyButton, searchField, status } from "./parts.js";
import { problem } from "./sse.js";

/**
 * @typedef {import("./types.d.ts").Level} Level
 * @typedef {{ Key: string, Value: string | null, ModifyIndex: number, Session?: string }} Entry
 */

const PARTS = /** @type {[string, string][]} */ ([["instances", "Instances"], ["keys", "Keys"], ["dns", "DNS"], ["nodes", "Nodes"]]);
/** The number of rows in the page. */
const MAX_ENTRIES = 100;
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
    this.chips = el("nav.chips", { "aria-label": "What" });
    this.where = el("span.end");
    this.search = searchField("Filter");
    this.content = el("div.registry-content");
    this.element = el(
      "div.main", el("h1.sr", "Registry"),
      el("section.card", { "aria-label": "Registry" }, el("div.bar", el("h2", "Registry"), this.chips, el("label.find.small", icon("find"), this.search), this.where), this.content),
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
    if (changes.all || changes.services.size || changes.streams) this.#draw();
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
    keyed(this.chips, PARTS, ([part]) => part, ([part]) => el("a.chip", { href: address.href(["registry", ...(part === "instances" ? [] : [part])]) }), (chip, [part, title]) => {
      text(chip, counts[part] === undefined ? title : `${title} ${counts[part]?.toLocaleString("en")}`);
      attribute(chip, "aria-current", part === this.#part ? "page" : null);
    });
    const kind = this.app.sources.registryKind ?? "";
    text(this.where, [kind, new URL(this.#url).host, "Consul’s API"].filter(Boolean).join(" · "));
    if (this.#error) once(this.content, `error ${this.#error}`, () => [el("p.nothing", `This can’t be read: ${this.#error}`)]);
    else if (this.#part === "keys") this.#drawKeys();
    else if (this.#part === "dns") this.#drawNames();
    else if (this.#part === "nodes") this.#drawNodes();
    else this.#drawInstances();
  }

  /**
   * Shows the rows that match the filter, in a table that scrolls sideways on a narrow screen.
   * @template {object} T
   * @param {string} label @param {string[]} heads @param {T[] | null} rows plain data @param {(row: T) => string} key
   * @param {(row: T) => import("./dom.js").Child[]} cells @param {string} none what is said if there is no row
   */
  #table(label, heads, rows, key, cells, none) {
    let table = /** @type {HTMLElement | null} */ (this.content.querySelector(`table[aria-label="${label}"]`));
    if (!table) {
      table = el("table.plain", { "aria-label": label }, el("thead", el("tr", ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody"));
      clear(this.content);
      this.content.append(el("div.wide", { tabindex: "0", role: "region", "aria-label": label }, table), el("p.nothing"));
    }
    const found = (rows ?? []).filter((row) => this.#matches(JSON.stringify(Object.values(row))));
    keyed(/** @type {Element} */ (table.lastChild), found.slice(0, MAX_ENTRIES), key, () => el("tr"), (line, row) => once(line, JSON.stringify(row), () => cells(row)));
    const note = /** @type {HTMLElement} */ (this.content.lastChild);
    const more = found.length > MAX_ENTRIES ? `${MAX_ENTRIES} of ${found.length.toLocaleString("en")} shown; filter to see the others` : "";
    text(note, found.length ? more : !rows ? "Loading" : this.#query ? "Nothing matches." : none);
    note.hidden = !note.textContent;
    return note;
  }

  #drawInstances() {
    const rows = [...this.app.state.registry.values()].flatMap((service) => service.instances.map((it) => ({ service: service.name, id: it.id, node: it.node, at: `${it.address}:${it.port}`, tags: it.tags, meta: it.meta, health: it.status })));
    rows.sort((a, b) => byName(a.service, b.service) || byName(a.id, b.id));
    this.#table("Instances", ["Service", "Instance", "Address", "Node", "Tags", "Metadata", "Copy"], rows, ({ node, id }) => `${node}/${id}`, ({ service, id, node, at, tags, meta, health }) => [
      el("td", service === "consul" ? service : el("a.strong", { href: address.href(["services", service]) }, service)),
      el("td", status(LEVELS[health], el("span", { title: health }, id), hiddenText(health))),
      el("td.mono", at), el("td.muted", node), el("td", el("div.tags", ...tags.map((tag) => el("span.tag", tag)))), metaCell(meta),
      el("td", copyButton(`curl ${this.#url}health/service/${encodeURIComponent(service)}`, "curl", `for ${service}`)),
    ], "No instance is registered.");
  }

  /** @param {string} words */
  #matches(words) {
    return words.toLowerCase().includes(this.#query);
  }

  // === Keys ===

  #drawKeys() {
    const keys = this.#keys;
    if (!keys) {
      once(this.content, "loading", () => [el("p.nothing", "Loading")]);
      return;
    }
    if (!this.content.querySelector(".two")) {
      clear(this.content);
      this.content.append(el(
        "div.two",
        el("nav.keys-list", { "aria-label": "Keys" }, el("ul"), el("p.muted.small.none"), el("button.btn", { onclick: () => this.#newKey() }, icon("scale"), "New key")),
        el("div.entry"),
      ));
    }
    const [list, none] = /** @type {any} */ (this.content.querySelector(".keys-list")).children;
    const shown = keys.filter((key) => this.#matches(key));
    keyed(list, shown.slice(0, MAX_ENTRIES * 3), (key) => key, (key) => el("li", el("a", { href: keyHref(key) }, key)), (line, key) => attribute(line.firstChild, "aria-current", key === this.#key ? "true" : null));
    text(none, shown.length > MAX_ENTRIES * 3 ? `${shown.length - MAX_ENTRIES * 3} more; filter to see them` : shown.length ? "" : this.#query ? "No key matches." : "No key is stored.");
    none.hidden = !none.textContent;
    this.#drawEntry(/** @type {HTMLElement} */ (this.content.querySelector(".entry")), keys.includes(this.#key));
  }

  /** @param {HTMLElement} section @param {boolean} exists */
  #drawEntry(section, exists) {
    const entry = this.#entry;
    if (!this.#key) {
      once(section, "none", () => [el("p.muted", this.#keys?.length ? "Choose a key." : "Configuration that several services share can be stored here.")]);
      return;
    }
    if (exists && entry?.Key !== this.#key) {
      once(section, `loading ${this.#key}`, () => [el("p.muted", "Loading")]);
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
    const title = el("label", { for: "kv" }, el("b.mono", key), " ", el("span.muted", entry ? `· change ${entry.ModifyIndex}${entry.Session ? " · locked by a session" : ""}` : "· new"));
    const get = `curl ${this.#url}kv/${keyPath(key)}?raw`;
    const acts = (/** @type {HTMLTextAreaElement | null} */ field) => el(
      "div.acts",
      field && el("button.btn.go", { onclick: () => this.#save(field, entry?.ModifyIndex ?? 0) }, entry ? "Save if unchanged" : "Create"),
      entry && copyButton(get, "curl", `for ${key}`), entry && el("button.btn", { onclick: () => this.#delete(key, entry.ModifyIndex) }, "Delete…"),
    );
    if (value === null) return [el("p", el("b.mono", key), " ", el("span.muted", "· a value that isn’t text, or is too long to be edited here")), acts(null)];
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
      const overwrite = await ask({ title: `${key} was changed meanwhile`, content: "Your text is kept until you load the new value.", yes: "Load the new value" });
      if (overwrite !== null) field.defaultValue = field.value;
    }
    await this.#load();
  }

  /** @param {string} key @param {number} index */
  async #delete(key, index) {
    const sure = await ask({ title: `Delete ${key}?`, content: "It is deleted only if it hasn’t been changed meanwhile.", yes: "Delete" });
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
    const port = this.#dnsPort > 0 ? this.#dnsPort : 8600;
    const rows = [...this.app.state.registry.values()].flatMap(({ name, tags, instances }) => [
      { name: `${name}.service.consul`, gives: `A, SRV: ${instances.filter((it) => it.status !== "critical").length} of ${instances.length}`, port },
      ...tags.slice(0, 4).map((tag) => ({ name: `${tag}.${name}.service.consul`, gives: `instances with the tag ${tag}`, port })),
    ]);
    const note = this.#table("Names in DNS", ["Name", "Gives", "Try it"], rows, ({ name }) => name, ({ name, gives }) => {
      const command = `dig @127.0.0.1 -p ${port} ${name} SRV`;
      return [el("td.mono", name), el("td.muted", gives), el("td", el("code", command), " ", copyButton(command, "Copy", command))];
    }, "No service is registered.");
    if (this.#dnsPort > 0) return;
    note.hidden = false;
    text(note, "This registry doesn’t answer DNS now. The embedded one does with “waypost agent --dns-port 8600”.");
  }

  #drawNodes() {
    const { registry } = this.app.state;
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { instances } of registry.values()) for (const { node } of instances) counts.set(node, (counts.get(node) ?? 0) + 1);
    const rows = this.#nodes?.map((node) => ({ ...node, instances: counts.get(node.Node) ?? 0 })) ?? null;
    this.#table("Nodes", ["Node", "Address", "Datacenter", "Instances", "Metadata", "Id"], rows, ({ Node }) => Node, ({ Node, Address, Datacenter, Meta, ID, instances }) => [
      el("td.strong", Node), el("td.mono", Address), el("td", Datacenter), el("td", String(instances)), metaCell(Meta ?? {}), el("td.mono.muted", ID),
    ], "No node is known.");
  }
}

/** A cell with metadata. @param {Record<string, string>} meta */
const metaCell = (meta) => el("td", el("div.tags", ...Object.entries(meta).map(([name, value]) => el("span.tag.mono", `${name}=${value}`))));

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
