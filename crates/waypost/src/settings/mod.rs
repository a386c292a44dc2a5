//! Settings from environment variables: the provider, and how it is used.
//!
//! Settings made in code take precedence over these.
//!
//! # Choice of the provider
//! The first row that applies is used:
//!
//! | environment | provider |
//! |---|---|
//! | `SERVICE_DISCOVERY_PROVIDER` | the named one: `env`, `static`, `consul`, `dns`, `kubernetes` |
//! | `SERVICE_DISCOVERY_CONFIG_FILE` | `static` |
//! | `CONSUL_HTTP_ADDR`, `CONSUL_HOST` or `SERVICE_REGISTRY_HOST` | `consul` |
//! | `KUBERNETES_SERVICE_HOST` (set in every pod), and the service account's token is readable | `kubernetes` |
//! | `KUBERNETES_SERVICE_HOST`, without a token | `env`, which reads the variables that Kubernetes injects |
//! | a `SERVICE_<NAME>_URL` or `SERVICE_<NAME>_HOST` | `env` |
//! | none of these | `consul`, at `localhost:8500` |
//!
//! # Consul
//! Waypost's own variables take precedence over those of Consul's tools, which take precedence over
//! `SERVICE_REGISTRY_*`. Each setting is read on its own, so the token may come from one set of
//! variables and the address from another.
//!
//! | setting | variables, in order of precedence | default |
//! |---|---|---|
//! | host | `CONSUL_HOST`, `CONSUL_HTTP_ADDR`, `SERVICE_REGISTRY_HOST` | `localhost` |
//! | port | `CONSUL_PORT`, `CONSUL_HTTP_ADDR`, `SERVICE_REGISTRY_PORT` | 8500 |
//! | scheme | `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_SSL` | `http` |
//! | token | `CONSUL_TOKEN`, `CONSUL_HTTP_TOKEN`, the file named by `CONSUL_HTTP_TOKEN_FILE` | none |
//! | trusted CAs | `CONSUL_CACERT` (a file), `CONSUL_CAPATH` (a folder) | the system's |
//! | client certificate | `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` | none |
//! | name in the agent's certificate | `CONSUL_TLS_SERVER_NAME` | the host |
//! | verification of the agent's certificate | `CONSUL_HTTP_SSL_VERIFY` | `true` |
//! | how long a request waits for a change, below the limit of a proxy in between | `CONSUL_WAIT`, from `1s` to `10m` | `1m` |
//! | namespace, partition | `CONSUL_NAMESPACE`, `CONSUL_PARTITION` | none |
//!
//! `CONSUL_HTTP_ADDR` may also be a socket, `unix:///path`, or a comma-separated list of addresses. If
//! an agent of the list doesn't respond, look-ups go to the next one.
//!
//! # DNS
//! | setting | variable | default |
//! |---|---|---|
//! | servers, as IP addresses with or without a port, separated by commas | `SERVICE_DISCOVERY_DNS_SERVER`, such as `127.0.0.1:8600` | those of `/etc/resolv.conf` |
//! | search domains, separated by commas | `SERVICE_DISCOVERY_DNS_SEARCH` | those of `/etc/resolv.conf`; none if servers are set |
//! | name to look up | `SERVICE_DISCOVERY_DNS_NAME`, such as `{service}.service.consul` | `{service}` |
//! | port; if it is set, A and AAAA records are used instead of SRV records | `SERVICE_DISCOVERY_DNS_PORT` | none |
//! | UDP instead of TCP | `SERVICE_DISCOVERY_DNS_UDP` | `false` |
//! | scheme | `SERVICE_DISCOVERY_DNS_SCHEME` | `http` |
//! | bounds of the time between look-ups, which is the records' time to live | `SERVICE_DISCOVERY_DNS_MIN_REFRESH`, `SERVICE_DISCOVERY_DNS_MAX_REFRESH` | `1s`, `1m` |
//!
//! # Kubernetes
//! The first row that applies is used, as with `kubectl`:
//!
//! | environment | configuration |
//! |---|---|
//! | `KUBECONFIG` | the files that it lists, separated by `:` |
//! | `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT` | the pod's: the server from these, token and CA from its service account |
//! | none of these | `~/.kube/config` |
//!
//! | setting | variables, in order of precedence | default |
//! |---|---|---|
//! | namespace of names without one | `KUBERNETES_NAMESPACE` | the pod's, the context's, `default` |
//! | further namespaces whose Services are listed; `*` for all | `KUBERNETES_NAMESPACES` | none |
//! | labels of the Services that are listed | `KUBERNETES_SERVICE_SELECTOR` | none |
//! | context of the kubeconfig | `KUBERNETES_CONTEXT` | the current one |
//! | domain of the cluster's DNS | `KUBERNETES_CLUSTER_DOMAIN` | `cluster.local` |
//! | node of this process, for traffic policies and hints | `KUBERNETES_NODE_NAME` | none |
//! | folder of the service account | `WAYPOST_SERVICE_ACCOUNT_DIR` | `/var/run/secrets/kubernetes.io/serviceaccount` |
//! | HTTP proxy | the kubeconfig's `proxy-url`, `HTTPS_PROXY` unless `NO_PROXY` | none |
//!
//! # Outages of the provider
//! | setting | variable | default |
//! |---|---|---|
//! | the age up to which a stale answer is served | `SERVICE_DISCOVERY_MAX_STALE`, such as `10m` | no limit |
//! | file that stores answers, for programs that start while the provider is down | `SERVICE_DISCOVERY_SNAPSHOT_FILE` | none |
//!
//! # Load balancing
//! | setting | variable | default |
//! |---|---|---|
//! | strategy, by its [name](crate::balance::strategy_named) | `SERVICE_DISCOVERY_STRATEGY`, such as `least_connections` | `round_robin` |
//! | zone of this process, whose instances are preferred | `SERVICE_DISCOVERY_ZONE` | none |
//! | outlier detection | `SERVICE_DISCOVERY_OUTLIER_DETECTION` | `true` |
//! | [active checks](crate::ActiveCheck) | `SERVICE_DISCOVERY_ACTIVE_CHECK`: `tcp`, or `http:/health` with the feature `http-check` | none |
//!
//! # Development
//! With `ENVIRONMENT=development`, a service that the provider doesn't know, or can't look up because it
//! fails, resolves to `http://localhost:8000`, where the gateway listens.

mod inventory;
mod selection;

pub use self::inventory::{Setting, Source, effective_settings};
pub use self::selection::{ProviderKind, Settings};
