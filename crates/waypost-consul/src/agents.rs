use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use waypost_core::{ProviderError, ProviderErrorKind};

use super::http::Http;
use super::permission::Need;
use super::places::Places;

/// The agents of a provider. Reads go to one that answers; writes always go to the first, since a
/// registration belongs to the agent that it was made with, and the same one made with two agents
/// would be two instances.
#[derive(Debug)]
pub(super) struct Agents {
    all: Vec<Http>,
    /// The one to read from.
    current: AtomicUsize,
    pub(super) places: Places,
    /// Whether the agents have no ACLs, so that there is no use in asking for rights.
    no_acl: AtomicBool,
}

impl Agents {
    /// There must be at least one.
    pub(super) fn new(all: Vec<Http>, connections: usize) -> Self {
        Self {
            all,
            current: AtomicUsize::new(0),
            places: Places::new(connections),
            no_acl: AtomicBool::new(false),
        }
    }

    pub(super) fn describe(&self) -> Arc<str> {
        let all: Vec<_> = self.all.iter().map(|a| a.address().to_string()).collect();
        format!("consul at {}", all.join(" or ")).into()
    }

    /// The one that registrations are made with.
    pub(super) fn first(&self) -> &Http {
        &self.all[0]
    }

    /// The one to read from, and its number.
    pub(super) fn current(&self) -> (usize, &Http) {
        let number = self.current.load(Ordering::Relaxed) % self.all.len();
        (number, &self.all[number])
    }

    /// Notes that an agent does not answer: the next one is to be read from.
    pub(super) fn failed(&self, number: usize, error: &ProviderError) {
        use ProviderErrorKind::{InvalidResponse, TimedOut, Unreachable};
        let is_its_fault = matches!(
            error.kind(),
            Unreachable | TimedOut { .. } | InvalidResponse
        );
        if self.all.len() == 1 || !is_its_fault {
            return;
        }
        let next = (number + 1) % self.all.len();
        // Of many watches that fail together only the first moves on.
        let moved =
            (self.current).compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            tracing::info!(%error, next = %self.all[next].address(), "asking another consul agent");
        }
    }

    /// Whether an empty answer may be believed. Consul leaves out what a token may not see, without
    /// an error: then nothing there and nothing to be seen look alike.
    pub(super) async fn may_see(&self, http: &Http, needs: &[Need]) -> Result<(), ProviderError> {
        if self.no_acl.load(Ordering::Relaxed) {
            return Ok(());
        }
        let questions = needs.iter().map(Need::question).collect();
        let path = "/v1/internal/acl/authorize";
        let reply = match http.ask(path, &questions).await {
            Ok(reply) => reply,
            Err(error) => {
                let text = error.message();
                // Without ACLs it is 401 with this text; others that speak this API have no such
                // path at all.
                let is_without = text.contains("ACL support disabled")
                    || (error.kind() == ProviderErrorKind::Rejected);
                if is_without {
                    self.no_acl.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                return Err(error);
            }
        };
        let Ok(verdicts) = serde_json::from_slice::<Vec<Verdict>>(&reply.body) else {
            return Ok(());
        };
        match needs
            .iter()
            .zip(verdicts)
            .find(|(_, verdict)| !verdict.allow)
        {
            None => Ok(()),
            Some((need, _)) => Err(http.error(
                ProviderErrorKind::NotAuthorised,
                format!("the token may not see what was asked for; its policy must say: {need}"),
            )),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    allow: bool,
}
