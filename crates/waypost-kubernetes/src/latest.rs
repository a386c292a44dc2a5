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
    /// Incremented with each new value, and when the value is confirmed.
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

/// What has led to the values and errors that are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cause {
    /// An attempt has failed. Its error is published although there was one before.
    pub(crate) is_new_attempt: bool,
    /// The server was heard from. A value without an error is published although it is the same:
    /// subscribers count its age from then.
    pub(crate) is_confirmation: bool,
}

/// Publishes the current value and error, if either has changed or `cause` asks for it.
pub(crate) fn publish<T: PartialEq>(
    channel: &watch::Sender<Latest<T>>,
    value: Option<T>,
    error: Option<&ProviderError>,
    cause: Cause,
) {
    channel.send_if_modified(|latest| {
        let is_confirmed = cause.is_confirmation && error.is_none();
        let is_new_value = value.is_some() && (latest.value != value || is_confirmed);
        if is_new_value {
            latest.value = value;
            latest.generation += 1;
        }
        let failed = error.is_some() && (cause.is_new_attempt || latest.error.is_none());
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
        let none = Cause::default();
        let attempt = Cause {
            is_new_attempt: true,
            ..none
        };
        assert_eq!(next(), None);
        publish(&sender, Some(1), None, none);
        publish(&sender, Some(2), None, none);
        assert_eq!(next().as_deref(), Some("2"));
        publish(&sender, Some(2), None, attempt);
        assert_eq!(next(), None);
        publish(&sender, Some(3), Some(&error("down")), attempt);
        assert_eq!(next().as_deref(), Some("3"));
        assert_eq!(next().as_deref(), Some("down"));
        publish(&sender, Some(3), Some(&error("still down")), none);
        assert_eq!(next(), None);
        publish(&sender, Some(3), Some(&error("still down")), attempt);
        assert_eq!(next().as_deref(), Some("still down"));
        publish(&sender, Some(3), None, none);
        assert_eq!(next().as_deref(), Some("3"));
        drop(sender);
        assert_eq!(next().as_deref(), Some("closed"));
        assert_eq!(next().as_deref(), Some("end"));
    }
    #[tokio::test]
    async fn a_confirmed_value_is_published_again_unless_there_is_an_error() {
        let sender = watch::Sender::new(Latest::default());
        let error = ProviderError::unreachable("test", "down");
        let mut items = subscribe(sender.subscribe(), error.clone(), ());
        let mut next = || items.next().now_or_never().flatten().map(Result::ok);
        let confirmation = Cause {
            is_confirmation: true,
            ..Cause::default()
        };
        for _ in 0..3 {
            publish(&sender, Some(1), None, confirmation);
            assert_eq!(next(), Some(Some(1)));
            assert_eq!(next(), None);
        }
        publish(&sender, Some(1), Some(&error), confirmation);
        assert_eq!(next(), Some(None));
        publish(&sender, Some(1), Some(&error), confirmation);
        assert_eq!(next(), None);
    }
}
