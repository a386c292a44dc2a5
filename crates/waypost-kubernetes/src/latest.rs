//! A channel that keeps the latest value and error, for any number of subscribers.
//!
//! A slow subscriber sees the latest value and skips those between.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use waypost_core::ProviderError;

/// The latest value, and the error that has prevented updates since.
#[derive(Clone, Debug)]
pub(crate) struct Latest<T> {
    value: Option<T>,
    /// Incremented with each new value.
    generation: u64,
    error: Option<ProviderError>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            value: None,
            generation: 0,
            error: None,
        }
    }
}

/// Publishes the current value and error, if either has changed. With `is_new_attempt` an error is
/// published although there was one before: each failed attempt is reported once.
pub(crate) fn publish<T: PartialEq>(
    channel: &watch::Sender<Latest<T>>,
    value: Option<T>,
    error: Option<&ProviderError>,
    is_new_attempt: bool,
) {
    channel.send_if_modified(|latest| {
        let is_new_value = value.is_some() && latest.value != value;
        if is_new_value {
            latest.value = value;
            latest.generation += 1;
        }
        let failed = error.is_some() && (is_new_attempt || latest.error.is_none());
        let recovered = error.is_none() && latest.error.is_some();
        if failed || recovered {
            latest.error = error.cloned();
        }
        is_new_value || failed || recovered
    });
}

/// The values and errors published on a channel, starting with the latest. A value that was
/// published with an error comes before it, and comes again when the error is over. When the sender
/// is dropped, the stream ends with `closed`. `keep_alive` is dropped with the stream.
pub(crate) fn subscribe<T: Clone + Send + Sync + 'static>(
    mut channel: watch::Receiver<Latest<T>>,
    closed: ProviderError,
    keep_alive: impl Send + 'static,
) -> BoxStream<'static, Result<T, ProviderError>> {
    channel.mark_changed();
    let state = (channel, 0, Some(closed), keep_alive);
    stream::unfold(
        state,
        |(mut channel, mut seen, mut closed, keep_alive)| async move {
            loop {
                if channel.changed().await.is_err() {
                    let items = vec![Err(closed.take()?)];
                    return Some((stream::iter(items), (channel, seen, closed, keep_alive)));
                }
                let latest = channel.borrow_and_update().clone();
                let is_new = latest.generation != std::mem::replace(&mut seen, latest.generation);
                let value = latest.value.filter(|_| is_new || latest.error.is_none());
                let items: Vec<_> = value
                    .map(Ok)
                    .into_iter()
                    .chain(latest.error.map(Err))
                    .collect();
                if !items.is_empty() {
                    return Some((stream::iter(items), (channel, seen, closed, keep_alive)));
                }
            }
        },
    )
    .flatten()
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn slow_subscriber_gets_the_latest_value_and_then_the_error() {
        let sender = watch::Sender::new(Latest::default());
        let error = |text: &str| ProviderError::unreachable("test", text);
        let mut items = subscribe(sender.subscribe(), error("closed"), ());
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
        assert_eq!(next().as_deref(), Some("closed"));
        assert_eq!(next().as_deref(), Some("end"));
    }
}
