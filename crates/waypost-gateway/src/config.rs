//! What can be set about a gateway.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use waypost::ServiceName;

/// How a gateway behaves. Begin with the default and change what differs:
///
/// ```
/// let mut config = waypost_gateway::Config::default();
/// config.trusted_proxies = vec!["10.0.0.0/8".parse()?];
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name under which the gateway registers itself. `api-gateway` by default.
    pub service: ServiceName,
    /// How long the news that the gateway is leaving may take to reach everybody, before it stops
    /// taking connections. 1 s by default.
    pub spread: Duration,
    /// How long a connection to an instance may take to be made. 2 s by default.
    pub connect_timeout: Duration,
    /// How long an instance may take to begin its response, counted from the last byte of the
    /// request. 60 s by default: a language model may think for long before its first word.
    pub first_byte_timeout: Duration,
    /// How long an instance may be silent in the middle of its response. 15 minutes by default,
    /// so that a quiet event stream lives.
    pub idle_timeout: Duration,
    /// How long a client may be silent in the middle of its request's body. 30 s by default.
    pub upload_idle_timeout: Duration,
    /// How long requests may go on after the gateway was told to stop. 30 s by default.
    pub drain_timeout: Duration,
    /// How many instances are tried for one request, at most. 3 by default.
    pub max_attempts: u32,
    /// Which share of a service's requests may be retried over 10 s, besides 10 retries a second
    /// that are always allowed. 0.2 by default.
    pub retry_share: f32,
    /// Up to how many bytes of a request's body are kept to be sent again. 64 KiB by default; at
    /// most 2 MiB are kept whatever is set here.
    pub replay_limit: usize,
    /// The proxies in front of the gateway whose `Forwarded` and `X-Forwarded-*` are believed.
    /// None by default.
    pub trusted_proxies: Vec<IpNet>,
    /// The certificates (PEM) of the authorities that `https` instances are believed by, instead of
    /// the machine's own, which `SSL_CERT_FILE` can name too. None by default.
    pub ca_file: Option<PathBuf>,
    /// Services without a route, besides the gateway itself. By default `consul`, which is how
    /// Consul lists its own servers, and `kubernetes`, the API server: no business of the outside.
    pub hidden: Vec<ServiceName>,
}

/// No request may make the gateway keep more than this.
const MOST_REPLAYED: usize = 2 * 1024 * 1024;

impl Config {
    pub(crate) fn bounded_replay_limit(&self) -> usize {
        self.replay_limit.min(MOST_REPLAYED)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service: valid("api-gateway"),
            spread: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            upload_idle_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            max_attempts: 3,
            retry_share: 0.2,
            replay_limit: 64 * 1024,
            trusted_proxies: Vec::new(),
            ca_file: None,
            hidden: vec![valid("consul"), valid("kubernetes")],
        }
    }
}

/// A name that we ourselves have written.
fn valid(name: &str) -> ServiceName {
    ServiceName::new(name).expect("letters and dashes make a valid name")
}
