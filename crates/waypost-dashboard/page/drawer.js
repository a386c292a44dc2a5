// The drawer: all that is known of one service.

import * as address from "./address.js";
import { ask } from "./actions.js";
import { drawStrip, strip } from "./charts.js";
import { attribute, clear, el, hiddenText, keyed, once, text } from "./dom.js";
import { checkOutput, clock, count, duration, exact, parseTime, percent, rate, size } from "./format.js";
import { LEVELS, icon, sign } from "./icons.js";
import { accessEntry, logLine } from "./lines.js";
import { callersOf, isGateway, measure } from "./model.js";
import { external, status } from "./parts.js";

/**
 * @typedef {import("./types.d.ts").Row} Row
 * @typedef {import("./types.d.ts").Check} Check
 */

/** The number of log lines in the drawer. */
const LOG_LINES = 12;
const LOG_TAB_LINES = 150;
const REQUEST_LINES = 60;
/** How often the checks of a failing service are read. */
const FAILING_MS = 4000;

export class Drawer {
  #name = "";
  #tab = "";
  /** @type {Check[] | null} */
  #checks = null;
  /** The change of the service for which the checks were loaded. */
  #checksOf = "";
  /** @type {{ name: string, value: string, masked: boolean, source: string }[] | null} */
  #environment = null;
  #error = "";
  #fetchedAt = 0;

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.heading = el("h2", { tabindex: "-1" });
    this.status = el("span");
    this.acts = el("div.acts");
    this.sub = el("p.sub");
    this.tabs = el("nav.tabs");
    this.content = el("div.scroll", { tabindex: "0", role: "region" });
    this.element = el("aside.side", { hidden: true }, el("header", el("div.title", this.heading, this.status, this.acts), this.sub, this.tabs), this.content);
  }

  /** Shows a service, or nothing. @param {string} name @param {string} tab */
  show(name, tab) {
    if (name !== this.#name) {
      this.#checks = null;
      this.#environment = null;
      this.#checksOf = "";
      this.#error = "";
    }
    if (tab !== this.#tab || name !== this.#name) {
      clear(this.content);
      this.content.scrollTop = 0;
    }
    this.#name = name;
    this.#tab = tab;
    this.element.hidden = !name;
    attribute(this.element, "aria-label", name);
    attribute(this.element, "data-name", name);
    this.app.store.wantLogs(!!name && !!this.app.sources.stack && (tab === "" || tab === "log" || tab === "requests"));
    if (name) this.#draw();
  }

  /** @param {import("./store.js").Changes} changes */
  update(changes) {
    if (!this.#name) return;
    const concerns = changes.all || changes.services.has(this.#name) || changes.streams;
    if (concerns || changes.second || (changes.lines && this.#tab !== "checks" && this.#tab !== "environment")) this.#draw();
  }

  /** @param {number} now */
  tick(now) {
    if (!this.#name) return;
    const row = this.app.rows.get(this.#name);
    // A failing check may have a new output after each run, even if the registry reports no change.
    if (row && row.level !== "ok" && this.#checks && now - this.#fetchedAt > FAILING_MS) this.#fetchChecks(row);
    for (const element of /** @type {NodeListOf<HTMLElement>} */ (this.content.querySelectorAll("[data-next]"))) {
      text(element, `Next check in ${duration(Math.max(0, Number(element.dataset.next) - now))}. `);
    }
  }

  // === Frame ===

  #draw() {
    const row = this.app.rows.get(this.#name);
    text(this.heading, this.#name);
    if (!row) {
      const isLoading = !this.app.rows.size;
      once(this.status, "none", () => []);
      once(this.acts, "none", () => [this.#closeButton()]);
      once(this.content, `none ${isLoading}`, () => [el("p.muted", isLoading ? "Loading" : `There is no service ${this.#name} now.`)]);
      return;
    }
    once(this.status, `${row.level} ${row.word}`, () => [status(row.level, row.word)]);
    once(this.acts, `${row.canRestart} ${row.isStopped} ${row.name}`, () => this.#actions(row));
    const facts = [row.about];
    once(this.sub, `${row.url} ${facts}`, () => [
      row.url && external(row.url, row.url.replace(/^https?:\/\//, "")),
      ...facts.filter(Boolean).map((fact) => el("span", fact)),
      ...this.#links(row),
    ]);
    const tabs = this.#tabList(row);
    attribute(this.tabs, "aria-label", `About ${row.name}`);
    once(this.tabs, `${row.name} ${this.#tab} ${tabs.join()} ${location.search}`, () => tabs.map(([tab, title]) =>
      el("a", { href: this.#href(tab), "aria-current": tab === this.#tab ? "page" : null }, title)));
    attribute(this.content, "aria-label", `${tabs.find(([tab]) => tab === this.#tab)?.[1] ?? "Overview"} of ${row.name}`);
    const stamp = JSON.stringify(row.instances.map(({ id, level, since }) => [id, level, since]));
    if (this.app.sources.registry && this.app.state.registry.has(row.name) && stamp !== this.#checksOf) {
      this.#checksOf = stamp;
      this.#fetchChecks(row);
    }
    if (this.#tab === "checks") this.#drawChecks();
    else if (this.#tab === "environment") this.#drawEnvironment(row);
    else if (this.#tab === "log") this.#drawLog(row, LOG_TAB_LINES);
    else if (this.#tab === "requests") this.#drawRequests(row);
    else this.#drawOverview(row);
  }

  /** @param {Row} row @returns {[string, string][]} */
  #tabList(row) {
    const checks = this.#checks?.filter((check) => check.ServiceID);
    /** @type {[string, string][]} */
    const tabs = [["", "Overview"]];
    if (this.app.sources.stack) tabs.push(["log", "Log"]);
    if (this.app.state.registry.has(row.name)) tabs.push(["checks", checks ? `Checks ${checks.length}` : "Checks"]);
    if (this.app.sources.stack && row.canRestart) tabs.push(["environment", this.#environment ? `Environment ${this.#environment.length}` : "Environment"]);
    if (this.app.sources.stack && this.app.sources.traffic) tabs.push(["requests", "Requests"]);
    return tabs;
  }

  /** @param {string} tab */
  #href(tab) {
    const query = new URLSearchParams(location.search);
    return address.href(["services", this.#name], { show: query.get("show"), q: query.get("q"), tab });
  }

  #closeButton() {
    const query = new URLSearchParams(location.search);
    return el("a.btn.icon", { href: address.href([], { show: query.get("show"), q: query.get("q") }), "aria-label": "Close", title: "Close (Esc)" }, icon("close"));
  }

  /** @param {Row} row */
  #actions(row) {
    const { actions } = this.app;
    if (!row.canRestart || !this.app.sources.stack) return [this.#closeButton()];
    const name = row.name;
    return [
      row.isStopped
        ? el("button.btn", { onclick: () => actions.start(name) }, icon("start"), "Start")
        : el("button.btn", { onclick: () => actions.restart(name), title: "Restart (r)" }, icon("restart"), "Restart"),
      !row.isStopped && el("button.btn.icon", { "aria-label": `Stop ${name}`, title: "Stop", onclick: () => actions.stop(name) }, icon("stop")),
      this.#closeButton(),
    ];
  }

  /** @param {Row} row */
  #links(row) {
    const links = this.app.state.services.get(row.name)?.links ?? {};
    return Object.entries(links).map(([title, href]) => external(href, title));
  }

  // === Overview ===

  /** The parts of the overview; created once, so that the selection and the scroll position are kept. */
  #overview() {
    const parts = /** @type {any} */ (this.content)._parts;
    if (parts?.why.isConnected) return parts;
    const made = {
      why: el("section.why", { "aria-label": "Why it is not all ready" }, el("strong"), el("pre"), el("p")),
      strips: el("div.strips"),
      axis: el("p.axis", el("span"), el("span", "now")),
      rows: el("ul.rows"),
      scale: el("span.end"),
      callers: el("ul"),
      calls: el("ul"),
      callsSection: el("section.calls"),
      logTitle: el("h3"),
      log: el("ol.log", { tabindex: "0" }),
    };
    made.callsSection.append(el("div", el("h3", "Called by"), made.callers), el("div", el("h3", "Calls"), made.calls));
    const instances = el("section", el("h3", "Instances", made.scale), made.rows);
    const health = el("section", el("h3", "Health ", el("span.end", "last 15 min")), made.strips, made.axis);
    const log = el("section", made.logTitle, made.log);
    clear(this.content);
    this.content.append(made.why, health, instances, made.callsSection, ...(this.app.sources.stack ? [log] : []));
    return (/** @type {any} */ (this.content)._parts = made);
  }

  /** @param {Row} row */
  #drawOverview(row) {
    const parts = this.#overview();
    this.#drawWhy(parts.why, row);
    const now = Date.now() / 1000;
    keyed(
      parts.strips, row.instances, (instance) => instance.id,
      (instance) => el("div.strip", el("span", { title: instance.id }, instance.id), strip(true)),
      (line, instance) => {
        const drawn = line.lastChild;
        drawStrip(drawn, instance.history, now);
        attribute(drawn, "aria-label", `${instance.id}: ${drawn.getAttribute("aria-label")}`);
      },
    );
    text(parts.axis.firstChild, clock((now - 900) * 1000).slice(0, 5));
    once(parts.scale, `${row.canRestart} ${row.name}`, () => (row.canRestart && this.app.sources.stack ? [el("button.addr", { onclick: () => this.#askScale() }, "Scale…")] : []));
    keyed(parts.rows, row.instances, (instance) => instance.id, () => this.#makeInstance(), (line, instance) => this.#drawInstance(line, instance, row));
    this.#drawCalls(parts, row);
    if (this.app.sources.stack) {
      once(parts.logTitle, row.name, () => [`Log of ${row.name} `, el("span.end", el("a.addr", { href: address.href(["logs"], { service: row.name }) }, "All of it"))]);
      attribute(parts.log, "aria-label", `Last lines of ${row.name}`);
      this.#drawLines(parts.log, this.#lines(row), LOG_LINES);
    }
  }

  async #askScale() {
    const row = this.app.rows.get(this.#name);
    if (!row) return;
    const answer = await ask({ title: `Scale ${row.name}`, yes: "Scale", field: { label: "Instances", value: String(row.wanted), type: "number", min: "1", max: "64" } });
    if (answer !== null) this.app.actions.scale(row.name, Number(answer));
  }

  /** Why it isn't all ready: the failing check with its request and answer, or the end of the process. @param {HTMLElement} section @param {Row} row */
  #drawWhy(section, row) {
    section.hidden = row.level === "ok" || (row.level === "idle" && !row.below);
    if (section.hidden) return;
    section.className = `why ${row.level}`;
    const [title, output, rest] = /** @type {HTMLElement[]} */ ([...section.children]);
    const failing = row.instances.find((instance) => instance.level === "bad") ?? row.instances.find((instance) => instance.level !== "ok");
    const service = this.app.state.services.get(row.name);
    const check = this.#checks?.find((check) => check.Status !== "passing" && (!failing || check.ServiceID === failing.id || check.ServiceID === ""))
      ?? this.#checks?.find((check) => check.Status !== "passing");
    const seen = check ? checkOutput(check.Output) : null;
    const lines = seen?.url ? [`${seen.method || check?.Definition.Method || "GET"} ${seen.url}${seen.status ? ` → ${seen.status}` : ""}`, seen.text].filter(Boolean) : check ? [check.Output || "no result yet"] : [];
    const error = service?.last_error;
    if (error && !lines.some((line) => line.includes(error))) lines.push(error);
    const who = failing?.id ?? row.name;
    const what = seen?.status ? `${who} answers ${seen.status} to its health check` : check ? `${who} fails the check “${check.Name}”` : row.need?.title ?? service?.why ?? row.word;
    text(title, what);
    text(output, lines.join("\n"));
    output.hidden = !lines.length;
    const next = parseTime(check?.NextRun);
    const key = JSON.stringify([check?.CheckID, check?.LastChanged, next, service?.why, service?.advice, row.since]);
    once(rest, key, () => [
      check && check.LastChanged && `Since ${clock(parseTime(check.LastChanged))}. `,
      check && next > Date.now() - 1000 && !check.Definition.TTL && el("span", { "data-next": String(next) }, `Next check in ${duration(next - Date.now())}. `),
      check?.Status === "critical" && this.app.sources.registry && "Gets no requests until it passes. ",
      !check && service?.why && service.why !== what ? `${service.why} ` : "",
      service?.advice && el("b", service.advice),
    ]);
    rest.hidden = !rest.textContent;
  }

  #makeInstance() {
    return el("li", el("span.who-is"), el("span.mono.muted.cut"), el("span.num.muted"), el("span.num"));
  }

  /** @param {HTMLElement} line @param {import("./types.d.ts").RowInstance} instance @param {Row} row */
  #drawInstance(line, instance, row) {
    const [who, where, use, load] = /** @type {any} */ (line.children);
    once(who, `${instance.level} ${instance.id} ${instance.word}`, () => [status(instance.level, el("span.cut", { title: instance.word }, instance.id), hiddenText(instance.word))]);
    text(where, [instance.address, instance.pid ? `pid ${instance.pid}` : ""].filter(Boolean).join(" · "));
    attribute(where, "title", instance.since ? `${instance.word} since ${exact(instance.since)}` : null);
    text(use, [instance.cpu != null ? `${Math.round(instance.cpu)} %` : "", instance.memory != null ? size(instance.memory) : ""].filter(Boolean).join(" · "));
    const traffic = this.app.state.traffic.get(row.name)?.instances ?? {};
    const port = /:(\d+)$/.exec(instance.address)?.[1];
    const known = Object.entries(traffic).find(([host]) => port && host.endsWith(`:${port}`))?.[1];
    text(load, known ? (known.ejected ? "ejected" : `${rate(known.requests)}/s`) : "");
  }

  /** @param {any} parts @param {Row} row */
  #drawCalls(parts, row) {
    const { state } = this.app;
    const callers = [...callersOf(state, row.name)].map(([name, perSecond]) => ({ name, perSecond, share: 0 }));
    const calls = this.app.sorted.map((other) => ({ name: other.name, perSecond: callersOf(state, other.name).get(row.name) ?? 0, share: measure(state, other.name).share }))
      .filter((call) => call.perSecond > 0);
    for (const name of row.uses) if (!calls.some((call) => call.name === name)) calls.push({ name, perSecond: 0, share: 0 });
    parts.callsSection.hidden = !callers.length && !calls.length;
    for (const [list, items] of /** @type {[HTMLElement, typeof calls][]} */ ([[parts.callers, callers], [parts.calls, calls]])) {
      keyed(list, items.sort((a, b) => b.perSecond - a.perSecond), (item) => item.name, () => el("li", el("span"), el("a"), el("span.num")), (line, { name, perSecond, share }) => {
        const [mark, link, number] = line.children;
        const level = this.app.rows.get(name)?.level ?? "idle";
        once(mark, level, () => [el(`span.sign.${level}`, sign(level))]);
        text(link, name);
        attribute(link, "href", this.app.rows.has(name) ? address.href(["services", name]) : null);
        text(number, [perSecond ? `${rate(perSecond)}/s` : "", share >= 0.999 ? "all fail" : share ? `${percent(share)} fail` : ""].filter(Boolean).join(" · "));
      });
      (/** @type {HTMLElement} */ (list.parentElement)).hidden = !items.length;
    }
  }

  // === Log and requests ===

  /** The log lines of a service. @param {Row} row */
  #lines(row) {
    return this.app.state.lines.filter((line) => line.service === row.name);
  }

  /** @param {HTMLElement} list @param {import("./types.d.ts").LogLine[]} lines @param {number} most */
  #drawLines(list, lines, most) {
    const shown = lines.slice(-most);
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    keyed(list, shown, (line) => String(line.id), (line) => logLine(line, { short: true }), () => {});
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }

  /** @param {Row} row @param {number} most */
  #drawLog(row, most) {
    let list = /** @type {HTMLElement | null} */ (this.content.querySelector("ol.log"));
    if (!list) {
      list = el("ol.log", { tabindex: "0", "aria-label": `Lines of ${row.name}, oldest first` });
      clear(this.content);
      this.content.append(el("p.muted", el("a.addr", { href: address.href(["logs"], { service: row.name }) }, "Search and follow in Logs")), list);
    }
    this.#drawLines(list, this.#lines(row), most);
  }

  /** The requests to the service, from the access log of the gateway. @param {Row} row */
  #drawRequests(row) {
    const requests = this.app.state.lines.map((line) => accessEntry(line)).filter((entry) => entry && (entry.route === row.name || isGateway(this.app.state, row.name)));
    once(this.content, `requests ${row.name} ${requests.length} ${requests.at(-1)?.id}`, () => [
      el("p.muted", requests.length ? "From the access log of the gateway, newest first." : "The gateway’s access log has no requests to it yet."),
      el("ul.rows.requests", ...requests.slice(-REQUEST_LINES).reverse().map((entry) => {
        const it = /** @type {NonNullable<typeof entry>} */ (entry);
        const level = Number(it.status) >= 500 ? "bad" : Number(it.status) >= 400 ? "warn" : "ok";
        return el(
          "li", status(level, it.status || "–"), el("span.mono.cut", { title: `${it.method} ${it.path}` }, `${it.method} ${it.path}`),
          el("span.num.muted", it.duration_ms ? `${it.duration_ms} ms` : ""),
          it.request_id ? el("a.addr", { href: address.href(["logs"], { request: it.request_id }) }, "log", hiddenText(` of request ${it.request_id}`)) : null,
        );
      })),
    ]);
  }

  // === Checks ===

  /** @param {Row} row */
  async #fetchChecks(row) {
    this.#fetchedAt = Date.now();
    try {
      const checks = await this.app.actions.json(`${this.app.sources.registry}waypost/checks?service=${encodeURIComponent(row.name)}`);
      if (this.#name !== row.name) return;
      this.#checks = checks ?? [];
      this.#error = "";
    } catch (error) {
      this.#error = /** @type {Error} */ (error).message;
    }
    this.#draw();
  }

  #drawChecks() {
    const checks = this.#checks;
    const key = `checks ${this.#error} ${checks && JSON.stringify(checks.map((check) => [check.Node, check.CheckID, check.Status, check.Output, check.History.length, check.Runs]))}`;
    once(this.content, key, () => {
      if (!checks) return [el("p.muted", this.#error ? `The checks can’t be read: ${this.#error}` : "Loading")];
      const shown = [...checks].sort((a, b) => Number(a.Status === "passing") - Number(b.Status === "passing") || Number(!a.ServiceID) - Number(!b.ServiceID));
      return shown.map((check) => checkSection(check));
    });
  }

  // === Environment ===

  /** @param {Row} row */
  #drawEnvironment(row) {
    if (!this.#environment && this.#error !== "loading") {
      this.#error = "loading";
      const name = row.name;
      this.app.actions.json(`${this.app.sources.stack}services/${encodeURIComponent(name)}/environment`).then(
        (variables) => {
          this.#error = "";
          if (this.#name === name) this.#environment = variables ?? [];
          this.#draw();
        },
        (error) => {
          clear(this.content);
          this.content.append(el("p.muted", `The environment can’t be read: ${error.message}`));
        },
      );
    }
    const variables = this.#environment;
    once(this.content, `environment ${variables?.length}`, () => (variables
      ? [
          el("p.muted", "The variables of the process. Values that look secret are masked."),
          el("dl.pairs", ...variables.map(({ name, value, masked, source }) =>
            el("div", el("dt.mono", name), el(`dd.mono.${masked ? "muted" : ""}`, masked ? "••••••" : value, masked && hiddenText("masked")), el("dd.muted", source)))),
        ]
      : [el("p.muted", "Loading")]));
  }
}

/** @param {Check} check */
function checkSection(check) {
  const level = LEVELS[check.Status];
  const past = strip(true);
  const history = /** @type {[number, string][]} */ (check.History.map(({ Time, Status }) => [parseTime(Time) / 1000, Status]));
  drawStrip(past, history, Date.now() / 1000);
  const { HTTP, TCP, GRPC, TTL, ScriptArgs, AliasService, Interval, Timeout, Method } = check.Definition;
  const what = HTTP ? `${Method || "GET"} ${HTTP}` : TCP ? `TCP ${TCP}` : GRPC ? `gRPC ${GRPC}` : TTL ? `a heartbeat every ${TTL}` : ScriptArgs ? ScriptArgs.join(" ") : AliasService ? `as ${AliasService}` : "set by a client";
  const how = [Interval && `every ${Interval}`, Timeout && `timeout ${Timeout}`, check.Runs && count(check.Runs, "run")].filter(Boolean).join(" · ");
  const changes = [...check.History].reverse().slice(0, 30);
  return el(
    "section.check", { "data-check": check.CheckID },
    el("h3", status(level, check.Name || check.CheckID), el("span.end", check.ServiceID || `node ${check.Node}`)),
    el("p.mono.small", what), how && el("p.muted.small", how),
    past,
    check.Output && el("pre.output", check.Output),
    el("ol.transitions", ...changes.map(({ Time, Status, Output }) => {
      const level = LEVELS[Status] ?? "idle";
      const seen = checkOutput(Output);
      return el("li", el("time", { title: exact(parseTime(Time)), datetime: Time }, clock(parseTime(Time))), status(level, Status), el("span.muted.cut", { title: Output }, `${seen.status} ${seen.text}`.trim()));
    })),
  );
}
