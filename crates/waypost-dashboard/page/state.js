// The known state of the stack, the registry and the traffic, and how messages change it. The worker and each page have
// the same state: a new page receives all of it first, and then the same messages.

/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Message} Message */
/** @typedef {import("./types.d.ts").Link} Link */

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
  /** @returns {Link} */
  const off = () => ({ state: "off", since: Date.now(), error: "" });
  return {
    stack: null, services: new Map(), pasts: new Map(), node: "", datacenter: "", registry: new Map(), second: 0,
    traffic: new Map(), lines: [], links: { stack: off(), registry: off(), traffic: off(), logs: off() },
  };
}

/** Applies a message. Returns the state, which is a new one only for `state`. @param {State} state @param {Message} message @returns {State} */
export function apply(state, message) {
  switch (message.type) {
    case "state":
      return message.state;
    case "link":
      state.links[message.source] = message.link;
      break;
    case "stack":
      // After a restart of the stack, log lines are numbered from the start again.
      if (state.stack && state.stack.started_at !== message.info.started_at) {
        state.lines = [];
        state.pasts = new Map();
      }
      state.stack = message.info;
      state.services = new Map(message.services.map((service) => [service.name, service]));
      for (const service of message.services) addPast(state, service);
      break;
    case "service":
      state.services.set(message.service.name, message.service);
      addPast(state, message.service);
      break;
    case "removed":
      state.services.delete(message.name);
      break;
    case "registry":
      state.node = message.node;
      state.datacenter = message.datacenter;
      state.registry = new Map(message.services.map((service) => [service.name, service]));
      break;
    case "registry-names": {
      const names = new Set(message.names);
      for (const name of state.registry.keys()) if (!names.has(name)) state.registry.delete(name);
      break;
    }
    case "registry-service":
      state.registry.set(message.service.name, message.service);
      break;
    case "registry-removed":
      state.registry.delete(message.name);
      break;
    case "traffic":
      state.second = message.second;
      state.traffic = new Map();
      for (const [name, { buckets }] of Object.entries(message.services)) {
        state.traffic.set(name, { buckets, callers: [], instances: {} });
      }
      break;
    case "second":
      addSecond(state, message.second, message.services);
      break;
    case "lines": {
      // After a reconnect, the last lines are received again.
      const newest = message.anew ? -1 : (state.lines.at(-1)?.id ?? -1);
      if (message.anew) state.lines = [];
      state.lines.push(...message.lines.filter((line) => line.id > newest));
      if (state.lines.length > MAX_LINES * 1.25) state.lines.splice(0, state.lines.length - MAX_LINES);
      break;
    }
  }
  return state;
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
  state.second = second;
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
