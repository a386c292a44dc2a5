//! Writes each change of an instance's state to the log, as a line of that instance.

use std::time::SystemTime;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::log::{Line, LogStore, Stream};
use crate::status::Events;

/// The task that writes the events. It ends when the supervisor is dropped.
#[derive(Debug)]
pub(crate) struct EventLogger {
    task: JoinHandle<()>,
    finish: CancellationToken,
}

impl EventLogger {
    /// Starts the task. `instances` are the names that the sink already has.
    pub(crate) fn start(events: Events, instances: Vec<String>, log: LogStore) -> Self {
        let finish = CancellationToken::new();
        let task = tokio::spawn(run(events, instances, log, finish.clone()));
        Self { task, finish }
    }

    /// Writes the events published so far and ends the task.
    pub(crate) async fn finish(self) {
        self.finish.cancel();
        let _ = self.task.await;
    }
}

async fn run(
    mut events: Events,
    mut instances: Vec<String>,
    log: LogStore,
    finish: CancellationToken,
) {
    loop {
        let status = tokio::select! {
            // Events are taken first, so that those published before `finish` are written.
            biased;
            status = events.next() => status,
            () = finish.cancelled() => None,
        };
        let Some(status) = status else { return };
        let line = Line {
            id: 0,
            service: status.service.as_str().into(),
            instance: status.instance.as_str().into(),
            stream: Stream::Runner,
            at: SystemTime::now(),
            text: status.to_string().into(),
            truncated: false,
        };
        if !instances.contains(&status.instance) {
            instances.push(status.instance);
            log.writer().set_instances(instances.clone()).await;
        }
        log.add(vec![line]).await;
    }
}
