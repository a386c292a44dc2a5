// The known state of the stack, the registry and the traffic, and how messages change it. The worker and each page have
// the same state: a new page receives all of it first, and then the same messages.

/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Message} Message */
/** @typedef {import("./types.d.ts").StreamState} StreamState */

/** How long traffic is kept, in seconds. */
const TRAFFIC_SECONDS = 900;
/** How long the callers of a service are kept, in seconds. */
export const CALLER_SECONDS = 60;
/** The number of log lines that are kept. */
export const MAX_LINES = 2000;
/** The number of state changes that are kept for each service. */
const MAX_PAST = 100;

/** @returns {State} */
export function emptyState() {
  /** @returns {StreamState} */
  const off = () => ({ state: "off", since: Date.now(), error: "" });
  return {
    stack: null, services: new Map(), pasts: new Map(), node: "", datacenter: "", registry: new Map(), second: 0,
    traffic: new Map(), routes: [], lines: [], streams: { stack: off(), registry: off(), traffic: off(), logs: off() },
  };
}

/** Applies a message. Returns the state, which is a new one only for `state`. @param {State} state @param {Message} message @returns {State} */
export function apply(state, { source, name, data }) {
  if (name === "state") return data;
  if (name === "stream") state.streams[source] = data;
  else if (source === "logs") addLines(state, data, name === "first lines");
  else if (source === "traffic") applyTraffic(state, name, data);
  else {
    const services = source === "stack" ? state.services : state.registry;
    const { services: all, ...rest } = data;
    if (name === "snapshot") {
      services.clear();
      if (source === "registry") Object.assign(state, { node: data.node, datacenter: data.datacenter });
      else {
        // After a restart of the stack, log lines are numbered from the start again.
        if (state.stack && state.stack.started_at !== data.started_at) {
          state.lines = [];
          state.pasts.clear();
        }
        state.stack = rest;
      }
    }
    if (name === "names") for (const known of services.keys()) if (!data.names.includes(known)) services.delete(known);
    if (name === "removed") services.delete(data.name);
    for (const service of name === "snapshot" ? all : name === "service" ? [data] : []) {
      services.set(service.name, service);
      if (source === "stack") addPast(state, service);
    }
  }
  return state;
}

/** @param {State} state @param {import("./types.d.ts").LogLine[]} lines @param {boolean} areFirst */
function addLines(state, lines, areFirst) {
  // After a reconnect, the last lines are received again.
  const newest = areFirst ? -1 : (state.lines.at(-1)?.id ?? -1);
  if (areFirst) state.lines = [];
  state.lines.push(...lines.filter((line) => line.id > newest));
  if (state.lines.length > MAX_LINES * 1.25) state.lines.splice(0, state.lines.length - MAX_LINES);
}

/** @param {State} state @param {string} name @param {any} data */
function applyTraffic(state, name, data) {
  if (name === "routes") {
    state.routes = data.routes;
    return;
  }
  state.second = data.second;
  if (name === "second") addSecond(state, data.second, data.services);
  else {
    state.traffic = new Map();
    for (const [service, { buckets }] of Object.entries(data.services)) state.traffic.set(service, { buckets, callers: [], instances: {} });
  }
}

/** @param {State} state @param {import("./types.d.ts").StackService} service */
function addPast(state, service) {
  const past = state.pasts.get(service.name) ?? [];
  if (past.at(-1)?.[1] === service.state) return;
  past.push([(Date.parse(service.since) || Date.now()) / 1000, service.state]);
  if (past.length > MAX_PAST) past.shift();
  state.pasts.set(service.name, past);
}

/** @param {State} state @param {number} second @param {Record<string, any>} services */
function addSecond(state, second, services) {
  for (const [name, now] of Object.entries(services)) {
    let traffic = state.traffic.get(name);
    if (!traffic) state.traffic.set(name, (traffic = { buckets: [], callers: [], instances: {} }));
    if (now.requests || now.failures) {
      traffic.buckets.push([second, now.requests, now.failures, now.p50_ms ?? null, now.p99_ms ?? null]);
    }
    if (now.requests) traffic.callers.push([second, now.callers ?? {}, now.requests]);
    if (now.instances) traffic.instances = { ...traffic.instances, ...now.instances };
    while (traffic.buckets.length && traffic.buckets[0][0] <= second - TRAFFIC_SECONDS) traffic.buckets.shift();
    while (traffic.callers.length && traffic.callers[0][0] <= second - CALLER_SECONDS) traffic.callers.shift();
  }
}
