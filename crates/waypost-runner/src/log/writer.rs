//! The thread that writes to the sink, and the channel to it.

use std::io;

use tokio::sync::{mpsc, oneshot};

use super::line::{Line, LogSink};

/// Sends lines to the sink's thread. The thread ends when all clones are dropped.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(mpsc::Sender<Message>);

enum Message {
    Instances(Vec<String>),
    Lines(Vec<Line>),
    Flush(oneshot::Sender<()>),
}

impl LogWriter {
    /// Starts the sink's thread.
    pub(crate) fn start(mut sink: impl LogSink, instances: Vec<String>) -> io::Result<Self> {
        let (sender, mut messages) = mpsc::channel(1);
        let run = move || {
            sink.set_instances(&instances);
            let mut failed = false;
            while let Some(message) = messages.blocking_recv() {
                match message {
                    Message::Instances(names) => sink.set_instances(&names),
                    Message::Lines(lines) => failed = failed || sink.write(&lines).is_err(),
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        };
        std::thread::Builder::new()
            .name("runner-log".to_owned())
            .spawn(run)?;
        Ok(Self(sender))
    }

    pub(crate) async fn set_instances(&self, names: Vec<String>) {
        self.send(Message::Instances(names)).await;
    }

    pub(crate) async fn write(&self, lines: Vec<Line>) {
        self.send(Message::Lines(lines)).await;
    }

    /// Waits until the sink has processed everything sent so far.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.send(Message::Flush(done)).await;
        let _ = flushed.await;
    }

    async fn send(&self, message: Message) {
        // Fails only if the sink has panicked.
        let _ = self.0.send(message).await;
    }
}
