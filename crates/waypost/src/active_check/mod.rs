//! Active health checks by this process, in addition to those of the registry and to outlier
//! detection: one loop per endpoint, while the service is used.

mod method;
mod runner;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use waypost_core::{Error, Instance, Invalid};

use self::method::CheckMethod;
use crate::outlier::CheckThresholds;

pub(crate) use self::runner::run_checks;

/// How this process checks the endpoints of the services that it uses; see
/// [`DirectoryOptions::active_check`](crate::directory::DirectoryOptions::active_check).
///
/// An endpoint whose checks fail is ejected until they pass again, whatever the outcome of its
/// requests. At most [`OutlierDetection::max_ejected`](crate::outlier::OutlierDetection::max_ejected) of the
/// endpoints are ejected at a time. Passing checks don't shorten an ejection for failed requests: an
/// endpoint may answer checks and still fail requests.
///
/// Each process checks each endpoint that takes new work once per interval, however many balancers it
/// has: 100 clients make 100 checks of each instance per interval. Prefer the registry's checks where
/// it has them.
///
/// ```
/// # use std::time::Duration;
/// use waypost::{ActiveCheck, ServiceDiscoveryClient};
/// # fn example() -> Result<(), waypost::Error> {
/// let client = ServiceDiscoveryClient::builder()
///     .active_check(ActiveCheck::tcp().every(Duration::from_secs(5)))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "pass it to `ClientBuilder::active_check`"]
pub struct ActiveCheck {
    method: CheckMethod,
    port: Option<Arc<str>>,
    interval: Duration,
    timeout: Duration,
    thresholds: CheckThresholds,
}

impl ActiveCheck {
    fn new(method: CheckMethod) -> Self {
        Self {
            method,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            thresholds: CheckThresholds { rise: 2, fall: 3 },
        }
    }

    /// Opens a connection to the instance's port.
    pub fn tcp() -> Self {
        Self::new(CheckMethod::Tcp)
    }

    /// Requests a path from the instance over HTTP, or HTTPS if that is its scheme. 2xx and 429 pass,
    /// everything else fails. Each check uses a new connection, no proxy, and follows no redirects;
    /// certificates are verified with the system's root certificates. The path prefix of the instance
    /// is not used.
    ///
    /// # Errors
    /// If the path doesn't start with a slash, or the system's root certificates can't be read.
    #[cfg(feature = "http-check")]
    pub fn http(path: &str) -> Result<Self, Error> {
        Ok(Self::new(CheckMethod::http(path)?))
    }

    /// Calls a function, for example one that calls gRPC's health service. Its error says why the check
    /// failed.
    pub fn custom<F, R>(check: F) -> Self
    where
        F: Fn(Arc<Instance>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self::new(CheckMethod::custom(check))
    }

    /// Checks the port with this name instead of the instance's main port. Instances without one are
    /// not checked.
    pub fn port(mut self, name: impl Into<Arc<str>>) -> Self {
        self.port = Some(name.into());
        self
    }

    /// The time from one check to the next, with 10 % jitter; the first check follows within this
    /// time. 10 s by default, at least 10 ms.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// The timeout of one check. 2 s by default.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// How many checks in a row must pass before an endpoint is readmitted. 2 by default.
    pub fn with_rise(mut self, checks: u32) -> Self {
        self.thresholds.rise = checks.max(1);
        self
    }

    /// How many checks in a row must fail before an endpoint is ejected. 3 by default.
    pub fn with_fall(mut self, checks: u32) -> Self {
        self.thresholds.fall = checks.max(1);
        self
    }

    /// Checks an instance once.
    ///
    /// # Errors
    /// If the check fails; the error says why.
    pub async fn check(&self, instance: &Arc<Instance>) -> Result<(), String> {
        let Some(port) = self.port_of(instance) else {
            return Err("the instance has no port with this name".into());
        };
        let checked = timeout(self.timeout, self.method.check(instance, port)).await;
        checked.unwrap_or_else(|_| {
            let limit = humantime::format_duration(self.timeout);
            Err(format!("no answer in {limit}"))
        })
    }

    fn port_of(&self, instance: &Instance) -> Option<u16> {
        match &self.port {
            Some(name) => instance.named_port(name),
            None => Some(instance.port()),
        }
    }
}

impl FromStr for ActiveCheck {
    type Err = Error;

    /// Parses the value of a setting: `tcp`, or `http:/health` for that path.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            None if text == "tcp" => Ok(Self::tcp()),
            #[cfg(feature = "http-check")]
            Some(("http", path)) => Self::http(path),
            #[cfg(not(feature = "http-check"))]
            Some(("http", _)) => {
                let why = "this program was built without the feature http-check";
                Err(Invalid::new("active check", text, why).into())
            }
            _ => Err(Invalid::new("active check", text, "use tcp or http:/health").into()),
        }
    }
}

impl fmt::Debug for ActiveCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveCheck")
            .field("method", &self.method)
            .field("port", &self.port)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("thresholds", &self.thresholds)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_setting_is_tcp_or_a_path() {
        for (text, method) in [("tcp", "method: tcp"), ("http:/health", "/health")] {
            let check: ActiveCheck = text.parse().unwrap();
            assert!(format!("{check:?}").contains(method), "{check:?}");
        }
        for text in ["", "udp", "tcp:", "https:/health", "http"] {
            let error = text.parse::<ActiveCheck>().unwrap_err().to_string();
            assert!(error.contains("use tcp or http:/health"), "{error}");
        }
    }
}
