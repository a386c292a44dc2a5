//! A channel that keeps the latest value and error, for any number of subscribers.
//!
//! A slow subscriber sees the latest value and skips earlier ones. It never misses an outage, even one
//! that is over, because answers after an outage are trusted less.

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
    /// Incremented with each error.
    errors: u64,
    /// The latest error, even if it is over.
    last_error: Option<ProviderError>,
    /// Incremented with each interruption that is published with an error.
    interruptions: u64,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            value: None,
            generation: 0,
            error: None,
            errors: 0,
            last_error: None,
            interruptions: 0,
        }
    }
}

/// Why a value or an error is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    /// An attempt has failed. Its error is published although there was one before.
    pub(crate) is_new_attempt: bool,
    /// The server has confirmed the value. It is published again although it is the same, because
    /// subscribers count its age from then.
    pub(crate) is_confirmation: bool,
    /// Requests succeed, but the value does not continue from the previous one.
    pub(crate) interruption: Option<ProviderError>,
}

/// Publishes the current value and error, if either has changed or `cause` requires it.
pub(crate) fn publish<T: PartialEq>(
    channel: &watch::Sender<Latest<T>>,
    value: Option<T>,
    error: Option<&ProviderError>,
    cause: &Cause,
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
        let interruption = cause.interruption.as_ref();
        let interruption = interruption.filter(|_| error.is_none() && latest.error.is_none());
        if failed || recovered {
            latest.error = error.cloned();
        }
        if error.is_some() && cause.interruption.is_some() {
            latest.interruptions += 1;
        }
        if let Some(error) = error.filter(|_| failed).or(interruption) {
            latest.errors += 1;
            latest.last_error = Some(error.clone());
        }
        is_new_value || failed || recovered || interruption.is_some()
    });
}

/// The values and errors published on a channel, starting with the latest. If a value was published
/// with an error, the value is yielded first, and again when the error is over. An error that is
/// already over is yielded before the value. So is an interruption of the watch, since the value may be
/// incomplete until the watch has caught up.
/// When the sender is dropped, the stream ends with `closed`. `keep_alive` is dropped with the stream.
pub(crate) fn subscribe<T: Clone + Send + Sync + 'static>(
    mut channel: watch::Receiver<Latest<T>>,
    closed: ProviderError,
    keep_alive: impl Send + 'static,
) -> BoxStream<'static, Result<T, ProviderError>> {
    channel.mark_changed();
    let (errors, interruptions) = {
        let latest = channel.borrow();
        (latest.errors, latest.interruptions)
    };
    let seen = (0, errors, interruptions);
    let state = (channel, seen, Some(closed), keep_alive);
    stream::unfold(
        state,
        |(mut channel, mut seen, mut closed, keep_alive)| async move {
            loop {
                if channel.changed().await.is_err() {
                    let items = vec![Err(closed.take()?)];
                    return Some((stream::iter(items), (channel, seen, closed, keep_alive)));
                }
                let latest = channel.borrow_and_update().clone();
                let now = (latest.generation, latest.errors, latest.interruptions);
                let (generation, errors, interruptions) = std::mem::replace(&mut seen, now);
                let is_new = latest.generation != generation;
                let value = latest.value.filter(|_| is_new || latest.error.is_none());
                let missed = latest.errors != errors && latest.error.is_none();
                let interrupted = latest.interruptions != interruptions && value.is_some();
                let missed = latest.last_error.filter(|_| missed || interrupted);
                let items: Vec<_> = (missed.map(Err).into_iter())
                    .chain(value.map(Ok))
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
    use futures_util::{FutureExt, Stream};

    use super::*;

    /// The next item of a subscription, or `None` if it has to wait: the value, the error's message, or `end`.
    fn next(
        items: &mut (impl Stream<Item = Result<i32, ProviderError>> + Unpin),
    ) -> Option<String> {
        items.next().now_or_never().map(|item| match item {
            Some(Ok(number)) => number.to_string(),
            Some(Err(error)) => error.message().to_owned(),
            None => "end".to_owned(),
        })
    }

    /// After a rollback of etcd the objects of one kind can be listed before those of the other.
    #[tokio::test]
    async fn incomplete_value_after_an_interruption_follows_the_error() {
        let sender = watch::Sender::new(Latest::default());
        let back = ProviderError::unreachable("test", "back");
        let mut items = subscribe(sender.subscribe(), back.clone(), ());
        let mut next = || next(&mut items);
        let none = Cause::default();
        let interruption = Cause {
            is_new_attempt: true,
            interruption: Some(back.clone()),
            ..Cause::default()
        };
        publish(&sender, Some(2), None, &none);
        assert_eq!(next().as_deref(), Some("2"));
        publish(&sender, Some(0), Some(&back), &interruption);
        assert_eq!(next().as_deref(), Some("back"));
        assert_eq!(next().as_deref(), Some("0"));
        assert_eq!(next().as_deref(), Some("back"));
        publish(&sender, Some(1), None, &none);
        assert_eq!(next().as_deref(), Some("1"));
        // Both at once.
        publish(&sender, Some(1), Some(&back), &interruption);
        publish(&sender, Some(0), Some(&back), &none);
        assert_eq!(next().as_deref(), Some("back"));
        assert_eq!(next().as_deref(), Some("0"));
    }

    #[tokio::test]
    async fn slow_subscriber_gets_the_latest_value_and_then_the_error() {
        let sender = watch::Sender::new(Latest::default());
        let error = |text: &str| ProviderError::unreachable("test", text);
        let mut items = subscribe(sender.subscribe(), error("closed"), ());
        let mut next = || next(&mut items);
        let none = Cause::default();
        let attempt = Cause {
            is_new_attempt: true,
            ..Cause::default()
        };
        assert_eq!(next(), None);
        publish(&sender, Some(1), None, &none);
        publish(&sender, Some(2), None, &none);
        assert_eq!(next().as_deref(), Some("2"));
        publish(&sender, Some(2), None, &attempt);
        assert_eq!(next(), None);
        publish(&sender, Some(3), Some(&error("down")), &attempt);
        assert_eq!(next().as_deref(), Some("3"));
        assert_eq!(next().as_deref(), Some("down"));
        publish(&sender, Some(3), Some(&error("still down")), &none);
        assert_eq!(next(), None);
        publish(&sender, Some(3), Some(&error("still down")), &attempt);
        assert_eq!(next().as_deref(), Some("still down"));
        publish(&sender, Some(3), None, &none);
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
        let mut next = || Some(items.next().now_or_never()??.ok());
        let confirmation = Cause {
            is_confirmation: true,
            ..Cause::default()
        };
        for _ in 0..3 {
            publish(&sender, Some(1), None, &confirmation);
            assert_eq!(next(), Some(Some(1)));
            assert_eq!(next(), None);
        }
        publish(&sender, Some(1), Some(&error), &confirmation);
        assert_eq!(next(), Some(None));
        publish(&sender, Some(1), Some(&error), &confirmation);
        assert_eq!(next(), None);
    }

    #[tokio::test]
    async fn a_slow_subscriber_gets_an_error_that_is_over_before_the_value() {
        let sender = watch::Sender::new(Latest::default());
        let error = |text: &str| ProviderError::unreachable("test", text);
        let items = |receiver| {
            let items = subscribe(receiver, error("closed"), ());
            items.map(|item| item.map_err(|error| error.message().to_owned()))
        };
        let mut slow = items(sender.subscribe());
        publish(&sender, Some(1), None, &Cause::default());
        assert_eq!(slow.next().await, Some(Ok(1)));
        publish(&sender, Some(1), Some(&error("down")), &Cause::default());
        publish(&sender, Some(2), None, &Cause::default());
        assert_eq!(slow.next().await, Some(Err("down".to_owned())));
        assert_eq!(slow.next().await, Some(Ok(2)));
        let interruption = Cause {
            interruption: Some(error("interrupted")),
            ..Cause::default()
        };
        publish(&sender, Some(3), None, &interruption);
        assert_eq!(slow.next().await, Some(Err("interrupted".to_owned())));
        assert_eq!(slow.next().await, Some(Ok(3)));
        // A subscription doesn't report what happened before it.
        assert_eq!(items(sender.subscribe()).next().await, Some(Ok(3)));
    }
}
