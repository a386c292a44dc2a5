// Types for the type checker (`cargo xtask lint`). The page doesn't load this file.

/** The sources of the page's data. URLs are relative to the base of the page. */
export interface Sources {
  /** The title of the page, such as the name of a stack. */
  name: string | null;
  /** The runner's API, ending in "/". */
  stack: string | null;
  /** The registry's API, ending in "/v1/". */
  registry: string | null;
  /** The kind of registry: "embedded", "Consul". */
  registryKind: string | null;
  /** The gateway's stream of traffic. */
  traffic: string | null;
  /** Further pages by title. */
  links: Record<string, string>;
}

export type SourceName = "stack" | "registry" | "traffic" | "logs";

export interface StreamState {
  state: "off" | "connecting" | "live" | "lost" | "denied";
  /** When the state began, in milliseconds. */
  since: number;
  error: string;
}

export interface StackInfo {
  name: string;
  file: string | null;
  directory: string;
  started_at: string;
  registry: string | null;
  gateway: string | null;
  dashboard: string | null;
}

export interface StackInstance {
  id: string;
  state: string;
  since: string;
  pid: number | null;
  port: number | null;
  restarts: number;
  exit: { code: number | null; signal: string | null } | null;
  next_start_at: string | null;
  cpu_percent: number | null;
  memory_bytes: number | null;
  why: string | null;
  started_at: string | null;
  registered: boolean;
}

export interface StackService {
  name: string;
  kind: string;
  state: string;
  since: string;
  why: string | null;
  advice: string | null;
  last_error: string | null;
  ready: number;
  wanted: number;
  address: string | null;
  url: string | null;
  restarts: number;
  cpu_percent: number | null;
  memory_bytes: number | null;
  after: string[];
  uses: string[];
  links: Record<string, string>;
  profiles: string[];
  instances: StackInstance[];
}

export type CheckStatus = "passing" | "warning" | "critical";

export interface RegistryInstance {
  id: string;
  node: string;
  address: string;
  port: number;
  tags: string[];
  meta: Record<string, string>;
  status: CheckStatus;
  since: string | null;
  why: { check: string; output: string } | null;
  history: [number, CheckStatus | "removed"][];
}

export interface RegistryService {
  name: string;
  tags: string[];
  instances: RegistryInstance[];
}

export interface Check {
  Node: string;
  CheckID: string;
  Name: string;
  ServiceID: string;
  ServiceName: string;
  Status: CheckStatus;
  Output: string;
  LastChanged: string | null;
  Definition: Record<string, any>;
  Runs: number;
  LastRun: string | null;
  NextRun: string | null;
  History: { Time: string; Status: string; Output: string }[];
}

/** Second, requests, failures, median and 99th percentile of the latency in ms. */
export type Bucket = [number, number, number, number | null, number | null];

export interface InstanceTraffic {
  requests: number;
  failures: number;
  in_flight: number;
  ejected: boolean;
}

export interface ServiceTraffic {
  buckets: Bucket[];
  /** By second: the requests of each caller that is known, and of all. */
  callers: [number, Record<string, number>, number][];
  instances: Record<string, InstanceTraffic>;
}

/** A destination of the gateway, as a gateway alone shows it. */
export interface Route {
  /** The path under which clients reach it. */
  path: string;
  service: string;
  /** How many instances there are, and how many of them get requests; null before the first request. */
  instances: number | null;
  usable: number | null;
  /** Why no instance gets requests. */
  error: string | null;
}

export interface LogLine {
  id: number;
  time: string;
  service: string;
  instance: string;
  stream: "stdout" | "stderr" | "event";
  level: "error" | "warn" | "info" | "debug" | "trace" | null;
  text: string;
}

export interface State {
  stack: StackInfo | null;
  services: Map<string, StackService>;
  /** The states of each service of the stack since the page was opened: seconds and state. */
  pasts: Map<string, [number, string][]>;
  node: string;
  datacenter: string;
  registry: Map<string, RegistryService>;
  second: number;
  traffic: Map<string, ServiceTraffic>;
  routes: Route[];
  lines: LogLine[];
  streams: Record<SourceName, StreamState>;
}

/** An event of a source as it was received, a `stream` (its state), or the whole `state` for a new page. */
export interface Message {
  source: SourceName;
  name: string;
  data: any;
}

export type Level = "bad" | "warn" | "idle" | "ok";

export interface RowInstance {
  id: string;
  level: Level;
  word: string;
  since: number;
  address: string;
  pid: number | null;
  cpu: number | null;
  memory: number | null;
  why: string;
  history: [number, string][];
}

/** A service as the page shows it. */
export interface Row {
  name: string;
  about: string;
  level: Level;
  word: string;
  below: string;
  since: number;
  ready: number;
  wanted: number;
  address: string;
  url: string | null;
  tags: string[];
  instances: RowInstance[];
  canRestart: boolean;
  isStopped: boolean;
  /** Whether nobody has called it yet, so that its instances aren't known. */
  isUncalled?: boolean;
  uses: string[];
  need: Need | null;
}

/** A card that says what needs attention. */
export interface Need {
  level: "bad" | "warn";
  title: string;
  detail: string;
  code: string;
  line: string;
}
