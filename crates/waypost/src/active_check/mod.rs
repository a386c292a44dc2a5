//! Checks that this process makes of endpoints itself, beside what the registry says of them and
//! what their answers show: one loop per endpoint, as long as somebody uses the service.

mod rounds;
mod way;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

pub(crate) use self::rounds::keep_checking;
use waypost_core::{Error, Instance, Invalid};

use self::way::Way;
use crate::conduct::Thresholds;

/// How this process checks the endpoints of the services that it uses; see
/// [`DirectoryOptions::active_check`](crate::DirectoryOptions::active_check).
///
/// An endpoint whose checks fail is ejected until they pass again, however its requests fare; the
/// share of endpoints that may be ejected at a time is that of
/// [`OutlierDetection::max_ejected`](crate::OutlierDetection::max_ejected). Checks that pass don't
/// shorten an ejection for failed requests: who answers checks may still fail at its work.
///
/// Each process checks each endpoint that takes new work, once per interval, however many
/// balancers it has: with 100 clients of 50 instances that is 100 checks of each instance per
/// interval. Where a registry checks already, let it.
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
#[must_use = "it does nothing until a client is built with it"]
pub struct ActiveCheck {
    way: Way,
    port: Option<Arc<str>>,
    interval: Duration,
    timeout: Duration,
    thresholds: Thresholds,
}

impl ActiveCheck {
    fn new(way: Way) -> Self {
        Self {
            way,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            thresholds: Thresholds { rise: 2, fall: 3 },
        }
    }

    /// Opens a connection to the instance's port.
    pub fn tcp() -> Self {
        Self::new(Way::Tcp)
    }

    /// Asks for a path at the instance, by HTTP or, if that is its scheme, HTTPS: 2xx passes, and
    /// 429 too, which is a warning; all else fails. A new connection each time, no redirects, no
    /// proxy; certificates are checked against the system's authorities. What the instance's URL
    /// has of a path doesn't matter.
    ///
    /// # Errors
    /// If the path is none, or the system's authorities can't be read.
    #[cfg(feature = "http-check")]
    pub fn http(path: &str) -> Result<Self, Error> {
        Ok(Self::new(Way::http(path)?))
    }

    /// Calls a function, which says what is wrong if something is: for gRPC's health service, say.
    pub fn by<F, R>(check: F) -> Self
    where
        F: Fn(Arc<Instance>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self::new(Way::by(check))
    }

    /// Checks the port of this name instead of the instance's own. Instances without one are not
    /// checked.
    pub fn port(mut self, name: impl Into<Arc<str>>) -> Self {
        self.port = Some(name.into());
        self
    }

    /// The time from one check to the next, 10 % more or less by chance; the first one comes
    /// within this time. 10 s unless set, at least 10 ms.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// How long a check may take. 2 s unless set.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// How many checks in a row must pass before an endpoint comes back. 2 unless set.
    pub fn with_rise(mut self, checks: u32) -> Self {
        self.thresholds.rise = checks.max(1);
        self
    }

    /// How many checks in a row must fail before an endpoint is ejected. 3 unless set.
    pub fn with_fall(mut self, checks: u32) -> Self {
        self.thresholds.fall = checks.max(1);
        self
    }

    /// Checks an instance once, now.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub async fn check(&self, instance: &Arc<Instance>) -> Result<(), String> {
        let Some(port) = self.port_of(instance) else {
            return Err("it has no port of that name".into());
        };
        let checked = timeout(self.timeout, self.way.check(instance, port)).await;
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

    /// Reads what a configuration says: `tcp`, or `http:/health` for that path.
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
            .field("way", &self.way)
            .field("port", &self.port)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("thresholds", &self.thresholds)
            .finish()
    }
}
