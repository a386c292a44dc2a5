// The rows of the page: each combines the data of the stack and of the registry for one service.

import { byName, checkOutput, count, duration, firstLine, parseTime } from "./format.js";

/**
 * @typedef {import("./types.d.ts").State} State
 * @typedef {import("./types.d.ts").Row} Row
 * @typedef {import("./types.d.ts").RowInstance} RowInstance
 * @typedef {import("./types.d.ts").Level} Level
 * @typedef {import("./types.d.ts").StackService} StackService
 * @typedef {import("./types.d.ts").RegistryService} RegistryService
 */

/** The registry's own entry, which the user hasn't added. */
const OWN_SERVICE = "consul";

/** The names under which built-in services of a stack are registered. @type {Record<string, string>} */
const REGISTERED_AS = { gateway: "api-gateway" };

/** How the states of the runner are shown; the others, such as `starting`, are idle. @type {Record<string, [Level, string]>} */
const STATES = {
  ready: ["ok", "Ready"],
  running: ["ok", "Running"],
  completed: ["ok", "Completed"],
  degraded: ["warn", "Degraded"],
  failed: ["bad", "Failed"],
  "crash-looping": ["bad", "Crash-looping"],
  unreachable: ["bad", "Unreachable"],
  // The state of an instance whose probe fails.
  unhealthy: ["bad", "Unhealthy"],
  healthy: ["ok", "Ready"],
};

/** @type {Record<string, [Level, string]>} */
const HEALTH = { passing: ["ok", "Ready"], warning: ["warn", "Warning"], critical: ["bad", "Failing"] };

const RANK = { bad: 0, warn: 1, idle: 2, ok: 3 };

/** Whether any service has been added. @param {State} state */
export function hasNoService(state) {
  const hasOthers = [...state.registry.keys()].some((name) => name !== OWN_SERVICE);
  return !state.services.size && !hasOthers;
}

/** The names of all services. @param {State} state */
export function serviceNames(state) {
  const all = new Set(state.services.keys());
  for (const name of state.registry.keys()) if (name !== OWN_SERVICE && !stackName(state, name)) all.add(name);
  if (isTrafficOnly(state)) for (const name of [...state.traffic.keys(), ...state.routes.map((route) => route.service)]) all.add(name);
  return all;
}

/** Whether nothing but the gateway is known. @param {State} state */
const isTrafficOnly = ({ streams, registry }) => streams.stack.state === "off" && !registry.size && ["off", "lost"].includes(streams.registry.state);

/**
 * Sorts rows: trouble first, then by name. Comparing names is slow, so their order is kept in `ranks` while the names
 * are the same.
 * @param {Map<string, Row>} rows @param {Map<string, number>} ranks
 */
export function sortRows(rows, ranks) {
  const isSame = ranks.size === rows.size && [...rows.keys()].every((name) => ranks.has(name));
  if (!isSame) {
    ranks.clear();
    [...rows.keys()].sort(byName).forEach((name, rank) => ranks.set(name, rank));
  }
  const rank = (/** @type {Row} */ row) => RANK[row.isUncalled ? "ok" : row.level] * 1e6 + /** @type {number} */ (ranks.get(row.name));
  return [...rows.values()].sort((a, b) => rank(a) - rank(b));
}

/** The name in the stack of a service that is registered under another name. @param {State} state @param {string} registered */
export function stackName(state, registered) {
  return Object.keys(REGISTERED_AS).find((name) => REGISTERED_AS[name] === registered && state.services.has(name));
}

/** The row of a service, or null if there is none. @param {State} state @param {string} name @returns {Row | null} */
export function rowOf(state, name) {
  const service = state.services.get(name);
  if (stackName(state, name)) return null;
  const registered = name === OWN_SERVICE ? undefined : state.registry.get(service && REGISTERED_AS[name] ? REGISTERED_AS[name] : name);
  if (service) return stackRow(state, service, registered);
  if (registered) return registryRow(registered);
  return isTrafficOnly(state) ? routeRow(state, name) : null;
}

/** The row of a service of which only the gateway's routes and traffic are known. @param {State} state @param {string} name @returns {Row} */
function routeRow(state, name) {
  const routes = state.routes.filter((route) => route.service === name);
  const { usable = null, instances = null, error = null } = routes[0] ?? {};
  const path = routes[0]?.path ?? "";
  /** @type {[Level, string]} */
  const [level, word] = error ? ["bad", "None ready"] : instances === null ? ["idle", "Not called yet"]
    : instances === usable ? ["ok", "Ready"] : ["warn", `${usable} of ${instances} ready`];
  return {
    name, about: routes.slice(1).map((route) => route.path).join(", "), level, word, below: error ?? "", since: 0, ready: usable ?? 0, wanted: instances ?? 0,
    address: path, url: path.startsWith("/") ? path : null, tags: [], canRestart: false, isStopped: false, isUncalled: level === "idle", uses: [],
    instances: Object.entries(state.traffic.get(name)?.instances ?? {}).map(([address, { ejected }]) => ({
      id: address, level: ejected ? "warn" : "ok", word: ejected ? "Ejected" : "Ready", since: 0, address, pid: null, cpu: null, memory: null, why: "", history: [],
    })),
    need: error ? { level: "bad", title: `${name} has no ready instance`, detail: "", code: "", line: error } : null,
  };
}

/** @param {State} state @param {StackService} service @param {RegistryService | undefined} registered @returns {Row} */
function stackRow(state, service, registered) {
  let [level, word] = STATES[service.state] ?? ["idle", capital(service.state)];
  const since = parseTime(service.since);
  let below = firstLine(service.why ?? "");
  if (service.kind === "external" && service.state === "ready") word = "Reachable";
  if (service.state === "degraded") word = `${service.ready} of ${service.wanted} ready`;
  const instances = service.instances.map((instance) => stackInstance(instance, service, registered));
  const failing = registered?.instances.filter((instance) => instance.status === "critical") ?? [];
  // The runner knows only its own probes; the registry may have other checks.
  if (level === "ok" && registered && failing.length) {
    level = failing.length === registered.instances.length ? "bad" : "warn";
    word = level === "bad" ? "Failing" : `${registered.instances.length - failing.length} of ${registered.instances.length} ready`;
    below = failing[0].why ? shortOutput(failing[0].why.output) : below;
  }
  if (!instances.some((instance) => instance.history.length)) {
    const past = state.pasts.get(service.name) ?? [];
    if (instances[0]) instances[0].history = past.map(([second, state]) => [second, pastStatus(state)]);
  }
  const isOwn = service.kind === "process" || service.kind === "once" || service.kind === "builtin";
  /** @type {Row} */
  const row = {
    name: service.name, about: about(service, registered), level, word, below, since,
    ready: service.ready, wanted: service.wanted, address: service.address ?? "", url: service.url ?? httpUrl(service.address),
    tags: registered?.tags ?? [], instances, canRestart: isOwn, isStopped: service.state === "stopped" || service.state === "failed" || service.state === "completed",
    uses: service.uses ?? [], need: null,
  };
  row.need = stackNeed(service, row);
  return row;
}

/** @param {string | null} address */
const httpUrl = (address) => (address ? `http://${address}/` : null);

/** @param {StackService} service @param {RegistryService | undefined} registered */
function about(service, registered) {
  if (service.kind === "builtin") return "built in";
  if (service.kind === "external") return "not run by Waypost";
  if (service.kind === "once") return "runs once";
  const version = registered?.instances.find((instance) => instance.meta.version)?.meta.version;
  return [version && `v${version}`, service.restarts ? count(service.restarts, "restart") : "", service.address ? "" : "no port"].filter(Boolean).join(" · ") || "process";
}

/** @param {import("./types.d.ts").StackInstance} instance @param {StackService} service @param {RegistryService | undefined} registered @returns {RowInstance} */
function stackInstance(instance, service, registered) {
  const known = registered?.instances.find((it) => it.id === instance.id || (instance.port && it.port === instance.port));
  let [level, word] = STATES[instance.state] ?? ["idle", capital(instance.state)];
  let why = instance.why ?? "";
  if (level === "ok" && known && known.status !== "passing") {
    [level, word] = HEALTH[known.status];
    why = known.why?.output ?? why;
  }
  return {
    id: instance.id, level, word, since: parseTime(instance.since), pid: instance.pid, why,
    address: instance.port ? `:${instance.port}` : "", cpu: instance.cpu_percent, memory: instance.memory_bytes,
    history: known?.history ?? [],
  };
}

/** @param {RegistryService} service @returns {Row} */
function registryRow(service) {
  const instances = service.instances.map((instance) => {
    const [level, word] = HEALTH[instance.status];
    return {
      id: instance.id, level, word, since: parseTime(instance.since), address: `${bracketed(instance.address)}:${instance.port}`, pid: null, cpu: null,
      memory: null, why: instance.why?.output ?? "", history: instance.history,
    };
  });
  const wanted = instances.length;
  const ready = instances.filter((instance) => instance.level !== "bad").length;
  const worst = instances.reduce((/** @type {Level} */ level, it) => (RANK[it.level] < RANK[level] ? it.level : level), "ok");
  /** @type {Level} */
  const level = ready === 0 ? "bad" : worst === "bad" ? "warn" : worst;
  const word = ready === 0 ? "None ready" : ready < wanted ? `${ready} of ${wanted} ready` : level === "warn" ? "Warning" : "Ready";
  const failing = service.instances.find((instance) => HEALTH[instance.status][0] !== "ok" && (level !== "bad" || instance.status === "critical"));
  const versions = [...new Set(service.instances.map((it) => it.meta.version).filter(Boolean))];
  const first = instances[0];
  /** @type {Row} */
  const row = {
    name: service.name, about: [versions.length === 1 ? `v${versions[0]}` : "", service.tags.slice(0, 3).join(", ")].filter(Boolean).join(" · "),
    level, word, below: failing?.why ? shortOutput(failing.why.output) : "",
    since: Math.max(0, ...instances.map((instance) => (level === "ok" || instance.level !== "ok" ? instance.since : 0))),
    ready, wanted, address: wanted === 1 && first ? first.address : "", url: null, tags: service.tags, instances,
    canRestart: false, isStopped: false, uses: [], need: null,
  };
  row.need = registryNeed(service, row);
  return row;
}

/** @param {string} host */
const bracketed = (host) => (host.includes(":") ? `[${host}]` : host);

/** A check's output in a few words, such as "503 from /health". @param {string} output */
function shortOutput(output) {
  const { status, path, text } = checkOutput(output);
  if (status) return `${status} from ${path}`;
  return firstLine(text).replace(/^dial tcp (\S+): connect: /, "$1: ") || "no result yet";
}

/** @param {StackService} service @param {Row} row @returns {import("./types.d.ts").Need | null} */
function stackNeed(service, row) {
  if (row.level !== "bad" && row.level !== "warn") return null;
  const failing = row.instances.filter((instance) => instance.level === "bad" || instance.level === "warn");
  const error = service.last_error ?? "";
  const line = [firstLine(service.why ?? failing[0]?.why ?? ""), service.advice ?? ""].filter(Boolean);
  if (row.level === "warn" && failing.length) return instanceNeed(row, failing, failing[0].why ? "" : error);
  const exit = service.instances.find((instance) => instance.exit)?.exit;
  const ended = exit?.signal ? `ended by SIG${exit.signal.replace(/^SIG/, "")}` : exit?.code != null ? `exit code ${exit.code}` : "";
  const detail = [service.restarts ? count(service.restarts, "restart") : "", ended].filter(Boolean).join(", ");
  return { level: row.level, title: `${service.name} ${row.word === "Failed" ? "has failed" : `is ${row.word.toLowerCase()}`}`, detail, code: error, line: (error ? line.filter((it) => !it.includes(error)) : line).join(" · ") };
}

/** @param {RegistryService} service @param {Row} row @returns {import("./types.d.ts").Need | null} */
function registryNeed(service, row) {
  if (row.level !== "bad" && row.level !== "warn") return null;
  const failing = row.instances.filter((instance) => instance.level !== "ok");
  if (row.level === "warn") return instanceNeed(row, failing, "");
  const output = service.instances.find((instance) => instance.why)?.why?.output ?? "";
  const { status, path, text } = checkOutput(output);
  return {
    level: "bad", title: `${service.name} has no ready instance`, detail: count(row.wanted, "instance fails", "instances fail"),
    code: status ? `${status} from ${path}` : "", line: firstLine(text) || "no result yet",
  };
}

/** @param {Row} row @param {RowInstance[]} failing @param {string} code @returns {import("./types.d.ts").Need} */
function instanceNeed(row, failing, code) {
  const ready = row.instances.filter((instance) => instance.level === "ok");
  const warns = failing.every((instance) => instance.level === "warn");
  const ended = failing.every((instance) => instance.word === "Failed" || instance.word === "Crash-looping");
  const verb = ended ? (failing.length === 1 ? "has ended" : "have ended") : warns ? (failing.length === 1 ? "has a warning" : "have warnings") : failing.length === 1 ? "fails its check" : "fail their checks";
  const who = failing.length < 4 ? failing.map((instance) => instance.id).join(", ") : `${failing.length} instances of ${row.name}`;
  const rest = !warns && ready.length ? (ready.length === 1 ? `${ready[0].id} takes all requests` : `${ready.length} others take the requests`) : "";
  const { status, path, text } = checkOutput(failing[0].why);
  return { level: "warn", title: `${who} ${verb}`, detail: rest, code: status ? `${status} from ${path}` : code, line: status || !code ? firstLine(text) : "" };
}

/** @param {string} state */
function pastStatus(state) {
  const level = STATES[state]?.[0] ?? "idle";
  return { ok: "passing", warn: "warning", bad: "critical", idle: "removed" }[level];
}

/** @param {string} word */
const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

// === Traffic ===

/**
 * The traffic of a service in the last seconds that are complete: per second, the share that failed, and the latency.
 * @param {State} state @param {string} name @param {number} [seconds]
 */
export function measure(state, name, seconds = 10) {
  const known = trafficOf(state, name)?.buckets ?? [];
  const recent = known.filter(([second]) => second > state.second - seconds);
  const requests = sum(recent, 1);
  const failures = sum(recent, 2);
  const medians = recent.map((bucket) => bucket[3]).filter((it) => it != null).sort((a, b) => Number(a) - Number(b));
  return {
    rate: requests / seconds, failed: failures / seconds, share: requests ? failures / requests : 0, isKnown: known.length > 0,
    p50: medians[medians.length >> 1] ?? null, p99: Math.max(0, ...recent.map((bucket) => bucket[4] ?? 0)) || null,
  };
}

/** The gateway's own row shows all traffic. @param {State} state @param {string} name */
export function trafficOf(state, name) {
  return state.traffic.get(name) ?? (isGateway(state, name) ? totalTraffic(state) : undefined);
}

/** @param {State} state @param {string} name */
export const isGateway = (state, name) => (name === "gateway" || name === "api-gateway") && state.streams.traffic.state !== "off";

/** The traffic of all services together. @param {State} state @returns {import("./types.d.ts").ServiceTraffic} */
export function totalTraffic(state) {
  /** @type {Map<number, import("./types.d.ts").Bucket>} */
  const bySecond = new Map();
  for (const { buckets } of state.traffic.values()) {
    for (const [second, requests, failures, p50, p99] of buckets) {
      const sum = bySecond.get(second);
      if (!sum) bySecond.set(second, [second, requests, failures, p50, p99]);
      else {
        sum[1] += requests;
        sum[2] += failures;
        // Percentiles can't be added: the slowest service decides.
        sum[3] = Math.max(sum[3] ?? 0, p50 ?? 0) || null;
        sum[4] = Math.max(sum[4] ?? 0, p99 ?? 0) || null;
      }
    }
  }
  return { buckets: [...bySecond.values()].sort((a, b) => a[0] - b[0]), callers: [], instances: {} };
}

/** @param {import("./types.d.ts").Bucket[]} buckets @param {1 | 2} field */
const sum = (buckets, field) => buckets.reduce((sum, bucket) => sum + bucket[field], 0);

/**
 * The callers of a service that are known by name, with their calls per second in the last minute. Those of what
 * happened before the page was opened aren't known, and are taken to be the same.
 * @param {State} state @param {string} name @returns {Map<string, number>}
 */
export function callersOf(state, name) {
  const known = (state.traffic.get(name)?.callers ?? []).filter(([second]) => second > state.second - 60);
  const all = known.reduce((all, [, , requests]) => all + requests, 0) || 1;
  const { rate } = measure(state, name, 60);
  /** @type {Map<string, number>} */
  const calls = new Map();
  for (const [, counts] of known) {
    for (const [caller, number] of Object.entries(counts)) calls.set(caller, (calls.get(caller) ?? 0) + (number / all) * rate);
  }
  return calls;
}
