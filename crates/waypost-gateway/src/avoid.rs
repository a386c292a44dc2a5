//! Instances that have just refused a connection are left alone for a moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use waypost::InstanceId;

/// For how long. A registry notices a dead instance within some seconds; until then every pick of
/// it would cost a retry.
const AVOIDED: Duration = Duration::from_secs(5);

/// The instances of one service that are avoided now.
#[derive(Debug, Default)]
pub(crate) struct Avoid(Mutex<Vec<(InstanceId, Instant)>>);

impl Avoid {
    pub(crate) fn add(&self, id: &InstanceId) {
        let mut avoided = self.current();
        avoided.retain(|(other, _)| other != id);
        avoided.push((id.clone(), Instant::now() + AVOIDED));
    }

    pub(crate) fn forgive(&self, id: &InstanceId) {
        self.current().retain(|(other, _)| other != id);
    }

    pub(crate) fn ids(&self) -> Vec<InstanceId> {
        self.current().iter().map(|(id, _)| id.clone()).collect()
    }

    fn current(&self) -> MutexGuard<'_, Vec<(InstanceId, Instant)>> {
        let mut avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !avoided.is_empty() {
            let now = Instant::now();
            avoided.retain(|(_, until)| *until > now);
        }
        avoided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_avoided_for_a_while_or_until_it_answers() {
        let (a, b) = (InstanceId::new("a"), InstanceId::new("b"));
        let avoid = Avoid::default();
        avoid.add(&a);
        avoid.add(&b);
        avoid.forgive(&b);
        assert_eq!(avoid.ids(), [a]);
        tokio::time::advance(AVOIDED).await;
        assert_eq!(avoid.ids(), []);
    }
}
