//! What all parts of a server share.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::Instant;

use crate::access::Credentials;
use crate::faults::Faults;
use crate::kinds::Kind;
use crate::requests::Requests;
use crate::store::{Key, Object, State, Store};

/// What can be set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub bookmark_interval: Duration,
    /// How long before its end a watch gets its last bookmark.
    pub last_bookmark: Duration,
    /// A reader that takes nothing for so long, with this many changes waiting, is cut off.
    pub slow_reader: (Duration, usize),
    /// How long watches outlive a SIGTERM.
    pub termination_tail: Duration,
    /// What is not done by then is given up.
    pub request_timeout: Duration,
    /// How long a list waits for a revision that is yet to come.
    pub future_wait: Duration,
    /// How long a namespace takes to go.
    pub namespace_deletion: Duration,
    pub allow_loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmark_interval: Duration::from_secs(60),
            last_bookmark: Duration::from_secs(2),
            slow_reader: (Duration::from_millis(250), 100),
            termination_tail: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
            future_wait: Duration::from_secs(3),
            namespace_deletion: Duration::from_secs(5),
            allow_loopback: false,
        }
    }
}

/// What all parts of a server share.
pub(crate) struct App {
    pub store: Store,
    pub credentials: Credentials,
    pub faults: Faults,
    pub requests: Requests,
    pub settings: Settings,
    random: Mutex<fastrand::Rng>,
}

impl App {
    pub(crate) fn new(settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            store: Store::new(),
            credentials: Credentials::default(),
            faults: Faults::default(),
            requests: Requests::new(Instant::now()),
            settings,
            random: Mutex::new(random),
        }
    }

    pub(crate) fn with_random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A version 4 UUID.
    pub(crate) fn uid(&self) -> String {
        let bits = self.with_random(|random| random.u128(..));
        let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// An address of the services' network that no service has.
    pub(crate) fn free_ip(&self, state: &State) -> Option<Ipv4Addr> {
        let services = Kind::find("", "v1", "services")?;
        let is_taken = |address: Ipv4Addr| {
            let text = format!("\"{address}\"");
            state
                .objects(services, None)
                .any(|it| String::from_utf8_lossy(&it.json).contains(&text))
        };
        (0..16)
            .map(|_| {
                self.with_random(|random| Ipv4Addr::new(10, 96, random.u8(..), random.u8(2..254)))
            })
            .find(|address| !is_taken(*address))
    }

    /// Takes an object out, and after it whatever belongs to it, as the garbage collector does.
    pub(crate) fn remove(&self, state: &mut State, kind: &Kind, key: &Key) -> Option<Arc<Object>> {
        let gone = self.store.remove(state, kind, key)?;
        for kind in &crate::kinds::KINDS {
            let namespace = (!key.namespace.is_empty()).then_some(key.namespace.as_str());
            let orphans: Vec<Key> = state
                .objects(kind, namespace)
                .filter(|it| it.owners.contains(&gone.uid))
                .map(|it| it.key.clone())
                .collect();
            for orphan in orphans {
                self.remove(state, kind, &orphan);
            }
        }
        Some(gone)
    }

    /// The metadata that every new object gets.
    pub(crate) fn complete(&self, kind: &Kind, object: &mut Value) {
        let meta = &mut object["metadata"];
        meta["uid"] = self.uid().into();
        meta["creationTimestamp"] = now().into();
        if kind.has_generation {
            meta["generation"] = 1.into();
        }
    }
}

/// The time as Kubernetes writes it.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
