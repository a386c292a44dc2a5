//! The latest that is known, for any number of listeners, each at its own pace.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use waypost_core::ProviderError;

/// What is known now. Who is slow sees the latest, not all that was between.
#[derive(Clone, Debug)]
pub(super) struct Said<T> {
    value: Option<T>,
    /// Grows with each new value.
    values: u64,
    fault: Option<ProviderError>,
}

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self {
            value: None,
            values: 0,
            fault: None,
        }
    }
}

/// Publishes a value, a failure, or both: the last known good with what is wrong now. `attempt`
/// says that the failure is a new one, though it be the same.
pub(super) fn publish<T: PartialEq>(
    to: &watch::Sender<Said<T>>,
    value: Option<T>,
    fault: Option<&ProviderError>,
    attempt: bool,
) {
    to.send_if_modified(|said| {
        let is_news = value.is_some() && said.value != value;
        if is_news {
            said.value = value;
            said.values += 1;
        }
        let failed = fault.is_some() && (attempt || said.fault.is_none());
        let recovered = fault.is_none() && said.fault.is_some();
        if failed || recovered {
            said.fault = fault.cloned();
        }
        is_news || failed || recovered
    });
}

/// Follows what is said. A value that comes with a failure is told before it. Ends, with a failure,
/// when nobody publishes any more. `keep` lives as long as the stream.
pub(super) fn follow<T: Clone + Send + Sync + 'static>(
    mut said: watch::Receiver<Said<T>>,
    ended: ProviderError,
    keep: impl Send + 'static,
) -> BoxStream<'static, Result<T, ProviderError>> {
    said.mark_changed();
    let state = (said, 0, Some(ended), keep);
    stream::unfold(state, |(mut said, told, mut ended, keep)| async move {
        loop {
            if said.changed().await.is_err() {
                let items = vec![Err(ended.take()?)];
                return Some((stream::iter(items), (said, told, ended, keep)));
            }
            let now = said.borrow_and_update().clone();
            let has_news = now.values != told;
            let told = now.values;
            let value = now.value.filter(|_| has_news || now.fault.is_none());
            let items: Vec<_> = value
                .map(Ok)
                .into_iter()
                .chain(now.fault.map(Err))
                .collect();
            if !items.is_empty() {
                return Some((stream::iter(items), (said, told, ended, keep)));
            }
        }
    })
    .flatten()
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_slow_listener_gets_the_latest_and_a_failure_comes_after_what_is_known() {
        let sender = watch::Sender::new(Said::default());
        let error = |text: &str| ProviderError::unreachable("test", text);
        let mut items = follow(sender.subscribe(), error("over"), ());
        let mut next = || {
            items.next().now_or_never().map(|item| match item {
                Some(Ok(number)) => format!("{number}"),
                Some(Err(error)) => error.message().to_owned(),
                None => "end".to_owned(),
            })
        };
        assert_eq!(next(), None);
        publish(&sender, Some(1), None, false);
        publish(&sender, Some(2), None, false);
        assert_eq!(next().as_deref(), Some("2"));
        publish(&sender, Some(2), None, true);
        assert_eq!(next(), None);
        publish(&sender, Some(3), Some(&error("down")), true);
        assert_eq!(next().as_deref(), Some("3"));
        assert_eq!(next().as_deref(), Some("down"));
        publish(&sender, Some(3), Some(&error("still down")), false);
        assert_eq!(next(), None);
        publish(&sender, Some(3), Some(&error("still down")), true);
        assert_eq!(next().as_deref(), Some("still down"));
        publish(&sender, Some(3), None, false);
        assert_eq!(next().as_deref(), Some("3"));
        drop(sender);
        assert_eq!(next().as_deref(), Some("over"));
        assert_eq!(next().as_deref(), Some("end"));
    }
}
