//! A request in progress. Its end is recorded when it is dropped.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use waypost::Instance;

use crate::attempt_error::AttemptError;
use crate::auth::Identity;
use crate::client::Client;
use crate::spans::{RequestSpan, TraceHeaders};
use crate::stream_info::StreamInfo;

/// A request of a client and its response. Recorded on drop, so that a request abandoned by its client
/// is recorded too.
pub(crate) struct Exchange {
    pub(crate) client: Arc<Client>,
    /// Held until the request ends, if its route limits the number of requests.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// What is known about the client, if its route asks for credentials.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) span: RequestSpan,
    /// Boxed, since a request passes through several futures, and each would copy it.
    info: Box<StreamInfo>,
}

impl Exchange {
    pub(crate) fn begin(client: Arc<Client>, info: StreamInfo) -> Self {
        client.request_began();
        Self {
            client,
            permit: None,
            identity: None,
            span: RequestSpan::default(),
            info: Box::new(info),
        }
    }

    /// Records the beginning of an attempt. Returns the headers that name its span.
    pub(crate) fn begin_attempt(&mut self, instance: &Arc<Instance>) -> Option<TraceHeaders> {
        self.info.attempts += 1;
        self.info.instance = Some(Arc::clone(instance));
        self.span.attempt_began(&self.info, instance)
    }

    /// Records that the attempt failed.
    #[cold]
    pub(crate) fn attempt_failed(&mut self, error: &AttemptError) {
        let kind = error.kind.as_str();
        self.info.cause = Some(format!("{kind}: {}", error.cause));
        self.span.attempt_failed(&self.info, kind);
    }
}

impl Deref for Exchange {
    type Target = StreamInfo;

    fn deref(&self) -> &StreamInfo {
        &self.info
    }
}

impl DerefMut for Exchange {
    fn deref_mut(&mut self) -> &mut StreamInfo {
        &mut self.info
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.request_ended();
        let worker = self.client.worker();
        worker.record(&self.info, self.client.peer_text());
        self.span.end(&self.info);
    }
}
