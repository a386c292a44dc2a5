//! The state of an object watch: a function of the events so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use waypost_core::{ProviderError, ProviderErrorKind};

use super::{ObjectKey, ObjectKind, Objects};
use crate::error::RequestError;
use crate::reflector::ReflectorEvent;

/// How long an empty list must last after a failure before it counts.
const HOLD: Duration = Duration::from_secs(10);

/// The objects of one kind.
pub(super) struct KindState<T> {
    kind: ObjectKind,
    /// What the server has sent.
    received: BTreeMap<ObjectKey, Arc<T>>,
    /// What is published: the same, except while an empty list is on hold.
    published: Arc<BTreeMap<ObjectKey, Arc<T>>>,
    confirmed_at: Option<Instant>,
    error: Option<RequestError>,
    /// Until when an empty list is on hold.
    hold_until: Option<Instant>,
}

impl<T> KindState<T> {
    pub(super) fn new(kind: ObjectKind) -> Self {
        Self {
            kind,
            received: BTreeMap::new(),
            published: Arc::default(),
            confirmed_at: None,
            error: None,
            hold_until: None,
        }
    }

    /// Applies an event. Returns whether the server didn't answer, so that it should be probed.
    pub(super) fn apply(
        &mut self,
        event: ReflectorEvent<Value>,
        now: Instant,
        parse: impl Fn(&ObjectKind, Value) -> Option<T>,
    ) -> bool {
        let was_failing = self.error.take().is_some();
        match event {
            ReflectorEvent::Listed {
                objects,
                watch_error,
                rolled_back,
            } => {
                let objects = objects.into_iter();
                self.received = objects.filter_map(|it| self.parsed(it, &parse)).collect();
                self.error = watch_error;
                let is_suspect = was_failing || rolled_back.is_some();
                if is_suspect && self.received.is_empty() && !self.published.is_empty() {
                    self.hold_until.get_or_insert(now + HOLD);
                }
            }
            ReflectorEvent::Applied(object) => {
                let parsed = self.parsed(object, &parse);
                self.received.extend(parsed);
            }
            ReflectorEvent::Deleted(key) => {
                self.received.remove(&key);
            }
            ReflectorEvent::Resumed | ReflectorEvent::Confirmed => {}
            ReflectorEvent::Failed(error) => {
                let needs_probe = !error.server_is_up();
                self.error = Some(error);
                return needs_probe;
            }
        }
        self.confirmed_at = Some(now);
        if !self.received.is_empty() {
            self.hold_until = None;
        }
        if self.hold_until.is_none() {
            self.publish();
        }
        false
    }

    /// An object with its key. One that can't be read keeps its last readable version, if there is one.
    fn parsed(
        &self,
        object: Value,
        parse: impl Fn(&ObjectKind, Value) -> Option<T>,
    ) -> Option<(ObjectKey, Arc<T>)> {
        let key = ObjectKey::of(&object);
        let read = parse(&self.kind, object).map(Arc::new);
        let read = read.or_else(|| self.received.get(&key).cloned())?;
        Some((key, read))
    }

    /// Records that the objects are outdated, unless the server has refused to list them anyway.
    pub(super) fn fail(&mut self, error: &RequestError) {
        if !self.is_refused() {
            self.error = Some(error.clone());
        }
    }

    /// Records that the server responds, and that the watch has missed nothing.
    pub(super) fn confirm(&mut self, now: Instant) {
        if self.error.is_none() && self.confirmed_at.is_some() {
            self.confirmed_at = Some(now);
        }
    }

    pub(super) fn hold_until(&self) -> Option<Instant> {
        self.hold_until
    }

    /// Publishes an empty list that has lasted for [`HOLD`].
    pub(super) fn end_hold(&mut self, now: Instant) {
        if self.hold_until.is_none_or(|end| end > now) {
            return;
        }
        if self.error.is_some() {
            self.hold_until = Some(now + HOLD);
            return;
        }
        self.hold_until = None;
        self.publish();
    }

    /// Whether to probe the server: not while it refuses to list these objects.
    pub(super) fn needs_liveness_probes(&self) -> bool {
        !self.is_refused()
    }

    /// The current state. `unresponsive` is the error of the latest probe, while the server doesn't
    /// respond.
    pub(super) fn snapshot(
        &self,
        provider: &Arc<str>,
        unresponsive: Option<&RequestError>,
    ) -> Objects<T> {
        let error = match (unresponsive.or(self.error.as_ref()), self.hold_until) {
            (Some(error), _) => Some(self.explained(error)),
            (None, Some(_)) => {
                let message = format!("the list of {} is empty after an outage", self.kind);
                let kind = ProviderErrorKind::Unconfirmed;
                Some(ProviderError::new(Arc::clone(provider), kind, message))
            }
            (None, None) => None,
        };
        Objects {
            kind: self.kind,
            objects: Arc::clone(&self.published),
            confirmed_at: self.confirmed_at,
            error,
            is_refused: self.is_refused(),
        }
    }

    fn explained(&self, error: &RequestError) -> ProviderError {
        if !error.is_not_found() {
            return error.error.clone();
        }
        let kind = self.kind;
        let message = format!(
            "the API server has no {kind} of version {}; is its CustomResourceDefinition installed?",
            kind.version
        );
        let provider: Arc<str> = error.error.provider().into();
        ProviderError::new(provider, ProviderErrorKind::Rejected, message)
    }

    fn is_refused(&self) -> bool {
        let is_refusal = |error: &RequestError| error.is_access_denied() || error.is_not_found();
        self.error.as_ref().is_some_and(is_refusal)
    }

    fn publish(&mut self) {
        let same = self.received.len() == self.published.len()
            && (self.received.iter().zip(self.published.iter()))
                .all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1));
        if !same {
            self.published = Arc::new(self.received.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ApiStatus;

    const KIND: ObjectKind = ObjectKind::new("example.org", "v1", "things");

    fn listed(names: &[&str]) -> ReflectorEvent<Value> {
        let object = |name: &&str| json!({ "metadata": { "namespace": "demo", "name": name } });
        ReflectorEvent::Listed {
            objects: names.iter().map(object).collect(),
            watch_error: None,
            rolled_back: None,
        }
    }

    fn failed(code: u16) -> ReflectorEvent<Value> {
        let status = ApiStatus {
            code,
            ..ApiStatus::default()
        };
        ReflectorEvent::Failed(RequestError::from_status("test", status, "me"))
    }

    fn apply(state: &mut KindState<Value>, event: ReflectorEvent<Value>) {
        state.apply(event, Instant::now(), |_, object| {
            (object["spec"] != "unreadable").then_some(object)
        });
    }

    fn names(state: &KindState<Value>) -> Vec<String> {
        let shown = state.snapshot(&"test".into(), None);
        shown.iter().map(|(key, _)| key.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_keeps_the_objects_and_a_deletion_removes_one() {
        let mut state = KindState::new(KIND);
        apply(&mut state, listed(&["a", "b"]));
        apply(&mut state, failed(503));
        assert_eq!(names(&state), ["demo/a", "demo/b"]);
        assert!(state.snapshot(&"test".into(), None).error().is_some());
        apply(&mut state, ReflectorEvent::Resumed);
        apply(
            &mut state,
            ReflectorEvent::Deleted(ObjectKey {
                namespace: "demo".into(),
                name: "a".into(),
            }),
        );
        assert_eq!(names(&state), ["demo/b"]);
        assert!(state.snapshot(&"test".into(), None).error().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_published_and_a_confirmation_copies_nothing() {
        let object = |name: &str, spec: &str| json!({ "metadata": { "namespace": "demo", "name": name }, "spec": spec });
        let mut state = KindState::new(KIND);
        apply(&mut state, listed(&["a", "b"]));
        let shown = |state: &KindState<Value>| state.snapshot(&"test".into(), None);
        let before = shown(&state);
        apply(&mut state, ReflectorEvent::Confirmed);
        assert!(Arc::ptr_eq(&before.objects, &shown(&state).objects));
        // At the end, so that all others are in the same places.
        apply(&mut state, ReflectorEvent::Applied(object("c", "1")));
        assert_eq!(names(&state), ["demo/a", "demo/b", "demo/c"]);
        apply(&mut state, ReflectorEvent::Applied(object("c", "2")));
        let after = shown(&state);
        let specs: Vec<_> = after
            .iter()
            .map(|(_, object)| object["spec"].clone())
            .collect();
        assert_eq!(specs[2], "2");
        apply(
            &mut state,
            ReflectorEvent::Deleted(ObjectKey::new("demo", "c")),
        );
        assert_eq!(names(&state), ["demo/a", "demo/b"]);
        // One name instead of another, with the same value.
        let parse = |_: &ObjectKind, _| Some(json!(1));
        let renamed = object("bb", "1");
        state.apply(
            ReflectorEvent::Deleted(ObjectKey::new("demo", "b")),
            Instant::now(),
            parse,
        );
        state.apply(ReflectorEvent::Applied(renamed), Instant::now(), parse);
        assert_eq!(names(&state), ["demo/a", "demo/bb"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_becomes_unreadable_keeps_its_last_readable_version() {
        let unreadable = |name: &str| json!({ "metadata": { "namespace": "demo", "name": name }, "spec": "unreadable" });
        let mut state = KindState::new(KIND);
        apply(&mut state, listed(&["a", "b"]));
        apply(&mut state, ReflectorEvent::Applied(unreadable("a")));
        apply(&mut state, ReflectorEvent::Applied(unreadable("new")));
        assert_eq!(names(&state), ["demo/a", "demo/b"]);
        apply(
            &mut state,
            ReflectorEvent::Listed {
                objects: vec![unreadable("a"), unreadable("new")],
                watch_error: None,
                rolled_back: None,
            },
        );
        assert_eq!(names(&state), ["demo/a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_list_after_an_outage_counts_only_if_it_lasts() {
        let mut state = KindState::new(KIND);
        apply(&mut state, listed(&["a"]));
        apply(&mut state, failed(503));
        apply(&mut state, listed(&[]));
        assert_eq!(names(&state), ["demo/a"]);
        tokio::time::advance(HOLD / 2).await;
        state.end_hold(Instant::now());
        assert_eq!(names(&state), ["demo/a"]);
        tokio::time::advance(HOLD / 2).await;
        state.end_hold(Instant::now());
        assert!(names(&state).is_empty());

        apply(&mut state, listed(&["a"]));
        apply(&mut state, listed(&[]));
        assert!(names(&state).is_empty(), "without an outage it counts");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_list_stays_on_hold_while_attempts_fail() {
        let mut state = KindState::new(KIND);
        apply(&mut state, listed(&["a"]));
        apply(&mut state, failed(503));
        apply(&mut state, listed(&[]));
        apply(&mut state, failed(503));
        tokio::time::advance(HOLD).await;
        state.end_hold(Instant::now());
        apply(&mut state, ReflectorEvent::Resumed);
        state.end_hold(Instant::now());
        assert_eq!(names(&state), ["demo/a"]);
        tokio::time::advance(HOLD).await;
        state.end_hold(Instant::now());
        assert!(names(&state).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_confirms_the_objects_or_says_that_they_are_outdated() {
        let rolled_back = |state: &mut KindState<Value>| {
            let status = ApiStatus {
                code: 503,
                ..ApiStatus::default()
            };
            state.fail(&RequestError::from_status("test", status, "me"));
        };
        let shown = |state: &KindState<Value>| state.snapshot(&"test".into(), None);
        let mut state = KindState::new(KIND);
        let age = |state: &KindState<Value>| shown(state).confirmed_at().map(|at| at.elapsed());
        state.confirm(Instant::now());
        assert_eq!(age(&state), None, "nothing was listed");
        apply(&mut state, listed(&["a"]));
        tokio::time::advance(HOLD).await;
        assert_eq!(age(&state), Some(HOLD));
        state.confirm(Instant::now());
        assert_eq!(age(&state), Some(Duration::ZERO));
        rolled_back(&mut state);
        assert!(shown(&state).error().is_some());
        tokio::time::advance(HOLD).await;
        state.confirm(Instant::now());
        assert_eq!(age(&state), Some(HOLD), "outdated until the next event");
        // That they can't be listed is the more important message.
        apply(&mut state, failed(404));
        rolled_back(&mut state);
        assert!(shown(&state).is_refused());
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_kind_is_explained() {
        let mut state = KindState::<Value>::new(KIND);
        apply(&mut state, failed(404));
        let shown = state.snapshot(&"test".into(), None);
        assert!(!shown.is_listed() && shown.is_refused());
        assert_eq!(
            shown.error().unwrap().to_string(),
            "test: the API server has no things.example.org of version v1; is its \
             CustomResourceDefinition installed?"
        );
    }
}
