//! Writes the status of objects.
//!
//! Each replica of the gateway computes the same status, so the first one writes it and the others find
//! nothing to change. A patch names the version that it was computed from: if the object has changed in the
//! meantime it is refused, and the watch brings the new version. If another program keeps replacing our
//! status, it is written again at longer and longer intervals.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use waypost::provider::kubernetes::objects::{ObjectClient, ObjectKey, ObjectKind, StatusPatch};

use super::conditions::set_time;
use super::resolve::StatusChange;

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// The first and the longest pause before a status that was replaced is written again.
const REPLACED: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(600)];

/// Writes the changes in `wanted`, as long as it is polled. Never returns.
pub(super) async fn write(client: &ObjectClient, mut wanted: watch::Receiver<Vec<StatusChange>>) {
    let mut history = History::default();
    let mut is_failing = false;
    loop {
        let changes = wanted.borrow_and_update().clone();
        history.retain(&changes);
        let mut again_at: Option<Instant> = None;
        let mut failed = false;
        for change in &changes {
            if wanted.has_changed().unwrap_or(false) {
                break;
            }
            match history.is_due(change, Instant::now()) {
                Due::Now => {}
                Due::Never => continue,
                Due::At(time) => {
                    again_at = Some(again_at.map_or(time, |at| at.min(time)));
                    continue;
                }
            }
            let result = client
                .patch_status(&change.kind, &change.key, &patch(change))
                .await;
            match result {
                Ok(StatusPatch::Applied) => history.written(change, Instant::now()),
                Ok(_) => history.refused(change),
                Err(error) => {
                    failed = true;
                    again_at = Some(Instant::now() + RETRY);
                    if !is_failing {
                        let (kind, key) = (&change.kind, &change.key);
                        tracing::warn!("the status of {kind} {key} can't be written: {error}");
                    }
                    break;
                }
            }
        }
        is_failing = failed;
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
        }
    }
}

fn patch(change: &StatusChange) -> Value {
    let mut status = change.status.clone();
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    set_time(&mut status, &now);
    json!({
        "metadata": { "resourceVersion": change.resource_version },
        "status": status,
    })
}

/// When a change is to be written.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
    /// The watch will bring a newer version of the object.
    Never,
}

/// What was written last for each object.
#[derive(Default)]
struct History {
    entries: HashMap<(ObjectKind, ObjectKey), Entry>,
}

struct Entry {
    /// The version for which a patch was sent.
    version: String,
    /// What was written, without times, and when.
    written: Option<(Value, Instant)>,
    /// How often another program has replaced it.
    replaced: u32,
}

impl History {
    /// Forgets objects that haven't been written for a long time and have nothing to change.
    fn retain(&mut self, changes: &[StatusChange]) {
        let now = Instant::now();
        self.entries.retain(|(kind, key), entry| {
            let is_wanted = |change: &StatusChange| change.kind == *kind && change.key == *key;
            let is_recent = entry
                .written
                .as_ref()
                .is_some_and(|(_, at)| now.duration_since(*at) < REPLACED[1]);
            is_recent || changes.iter().any(is_wanted)
        });
    }

    fn is_due(&self, change: &StatusChange, now: Instant) -> Due {
        let Some(entry) = self.entries.get(&(change.kind, change.key.clone())) else {
            return Due::Now;
        };
        if entry.version == change.resource_version {
            return Due::Never;
        }
        match &entry.written {
            Some((written, at)) if *written == without_times(&change.status) => {
                let pause = REPLACED[0].saturating_mul(1 << entry.replaced.min(10));
                let time = *at + pause.min(REPLACED[1]);
                if time <= now { Due::Now } else { Due::At(time) }
            }
            _ => Due::Now,
        }
    }

    fn written(&mut self, change: &StatusChange, now: Instant) {
        let status = without_times(&change.status);
        let key = (change.kind, change.key.clone());
        let before = self.entries.remove(&key);
        let replaced = before.map_or(0, |entry| match entry.written {
            Some((written, _)) if written == status => entry.replaced + 1,
            _ => 0,
        });
        let entry = Entry {
            version: change.resource_version.clone(),
            written: Some((status, now)),
            replaced,
        };
        self.entries.insert(key, entry);
    }

    fn refused(&mut self, change: &StatusChange) {
        let key = (change.kind, change.key.clone());
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            version: String::new(),
            written: None,
            replaced: 0,
        });
        entry.version.clone_from(&change.resource_version);
    }
}

fn without_times(status: &Value) -> Value {
    let mut status = status.clone();
    remove_times(&mut status);
    status
}

fn remove_times(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(remove_times),
        Value::Object(members) => {
            members.remove("lastTransitionTime");
            members.values_mut().for_each(remove_times);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use waypost::provider::kubernetes::KubernetesProvider;
    use waypost_fake_kubernetes::ApiServer;
    use waypost_testkit::Logs;

    use super::super::conditions::NOW;
    use super::super::objects::ROUTES;
    use super::*;

    fn change(version: &str, status: Value) -> StatusChange {
        StatusChange {
            kind: ROUTES,
            key: ObjectKey::new("shop", "orders"),
            resource_version: version.to_owned(),
            status,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_that_somebody_else_replaces_is_written_more_and_more_rarely() {
        let mut history = History::default();
        let mut due = |version: &str, status: &Value| {
            let change = change(version, status.clone());
            let due = history.is_due(&change, Instant::now());
            if due == Due::Now {
                history.written(&change, Instant::now());
            }
            due
        };
        let ours = json!({ "parents": [{ "lastTransitionTime": "now" }] });
        assert_eq!(due("1", &ours), Due::Now);
        assert_eq!(due("1", &ours), Due::Never, "the watch is behind");
        let start = Instant::now();
        assert_eq!(due("3", &ours), Due::At(start + REPLACED[0]));
        tokio::time::advance(REPLACED[0]).await;
        assert_eq!(due("3", &ours), Due::Now);
        let second = Instant::now();
        assert_eq!(due("5", &ours), Due::At(second + REPLACED[0] * 2));
        let other = json!({ "parents": [] });
        assert_eq!(
            due("5", &other),
            Due::Now,
            "a new status is written at once"
        );
    }

    #[tokio::test]
    async fn a_status_that_can_not_be_written_is_tried_again_after_a_pause() {
        let (logs, _guard) = Logs::take();
        let server = ApiServer::builder().namespace("shop").start().await;
        let server = server.unwrap();
        server.add_user("gateway");
        let kubeconfig = server.kubeconfig_of("gateway").unwrap();
        let provider = KubernetesProvider::builder().kubeconfig(kubeconfig);
        let client = provider.build().unwrap().objects();
        let status = json!({ "parents": [] });
        let (_changes, wanted) = watch::channel(vec![change("1", status)]);
        tokio::time::pause();
        let writing = write(&client, wanted);
        let ended = tokio::time::timeout(RETRY * 7 / 2, writing).await;
        assert!(ended.is_err(), "it never returns");
        let tried = server.requests().len();
        assert!((2..=4).contains(&tried), "{tried} times in 3.5 pauses");
        let warnings = logs.lines(&["shop/orders", "can't be written"]);
        assert_eq!(warnings.len(), 1, "logged once: {warnings:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_patch_waits_for_the_new_version() {
        let mut history = History::default();
        let status = json!({ "parents": [] });
        history.refused(&change("1", status.clone()));
        let due = |version| history.is_due(&change(version, status.clone()), Instant::now());
        assert_eq!((due("1"), due("2")), (Due::Never, Due::Now));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_forgotten_once_it_has_nothing_to_change_for_a_long_time() {
        let mut history = History::default();
        let ours = change("1", json!({ "parents": [] }));
        let mut other = ours.clone();
        other.key = ObjectKey::new("shop", "users");
        history.written(&ours, Instant::now());
        history.retain(std::slice::from_ref(&other));
        assert_eq!(history.is_due(&ours, Instant::now()), Due::Never);
        tokio::time::advance(REPLACED[1]).await;
        history.retain(std::slice::from_ref(&ours));
        assert_eq!(history.is_due(&ours, Instant::now()), Due::Never);
        history.retain(std::slice::from_ref(&other));
        assert_eq!(history.is_due(&ours, Instant::now()), Due::Now);
        history.refused(&ours);
        history.retain(&[]);
        assert_eq!(history.is_due(&ours, Instant::now()), Due::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_before_a_status_is_written_again_has_a_maximum_and_begins_anew() {
        let mut history = History::default();
        let ours = json!({ "parents": [{ "name": "a" }] });
        let mut pauses = Vec::new();
        for version in 0..9 {
            let change = change(&version.to_string(), ours.clone());
            if let Due::At(time) = history.is_due(&change, Instant::now()) {
                pauses.push((time - Instant::now()).as_secs());
                tokio::time::advance(time - Instant::now()).await;
            }
            assert_eq!(history.is_due(&change, Instant::now()), Due::Now);
            history.written(&change, Instant::now());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        history.written(&change("9", json!({ "parents": [] })), Instant::now());
        history.written(&change("10", ours.clone()), Instant::now());
        let due = history.is_due(&change("11", ours), Instant::now());
        assert_eq!(due, Due::At(Instant::now() + REPLACED[0]));
    }

    #[test]
    fn a_patch_names_its_version_and_sets_the_times() {
        let condition = json!({ "type": "Accepted", "lastTransitionTime": NOW });
        let status = json!({ "parents": [{ "conditions": [condition] }] });
        let patch = patch(&change("7", status.clone()));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let without = json!({ "parents": [{ "conditions": [{ "type": "Accepted" }] }] });
        assert_eq!(without_times(&patch["status"]), without);
        let set = &patch["status"]["parents"][0]["conditions"][0]["lastTransitionTime"];
        assert!(humantime::parse_rfc3339(set.as_str().unwrap()).is_ok());
    }
}
