use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{ProviderError, ProviderErrorKind};

/// How a provider has done so far, over all watches of a [`Directory`](crate::Directory).
#[derive(Clone, Debug)]
pub struct ProviderStatus {
    provider: Arc<str>,
    watches: usize,
    failing: usize,
    last_success: Option<Instant>,
    last_error: Option<(Instant, ProviderError)>,
    answers: u64,
    failures: u64,
    reconnects: u64,
}

impl ProviderStatus {
    /// The provider, with its address.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// How many watches run, one for each service that somebody asks for.
    pub fn watches(&self) -> usize {
        self.watches
    }

    /// How many of them fail now.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// When the provider last answered, if it ever did.
    pub fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// How old what it said may be: the time since its last answer while a watch fails, zero while
    /// none does. `None` before the first answer.
    pub fn age(&self) -> Option<Duration> {
        let last = self.last_success?;
        Some(match self.failing {
            0 => Duration::ZERO,
            _ => last.elapsed(),
        })
    }

    /// The latest failure, though it may be over.
    pub fn last_error(&self) -> Option<&ProviderError> {
        self.last_error.as_ref().map(|(_, error)| error)
    }

    /// When that was.
    pub fn last_error_at(&self) -> Option<Instant> {
        self.last_error.as_ref().map(|(at, _)| *at)
    }

    /// How many answers have come in all, those without news too.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// How many attempts have failed in all.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// How many times a watch was begun again after it had ended.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }
}

impl fmt::Display for ProviderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.provider)?;
        match (self.failing, self.last_success) {
            (0, None) => f.write_str("not asked yet"),
            (0, Some(_)) => write!(f, "answers; {} watches", self.watches),
            (failing, _) => {
                write!(f, "{failing} of {} watches fail", self.watches)?;
                match self.last_error() {
                    Some(error) => write!(f, ": {}", error.message()),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What a failure says about the provider as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// It does not answer, or nothing sensible: that hits all services alike.
    Outage,
    /// It answers and refuses: that concerns what was asked.
    Refusal,
}

impl Sort {
    pub(super) fn of(error: &ProviderError) -> Self {
        use ProviderErrorKind::{NotAuthorised, Rejected, Unsupported};
        match error.kind() {
            NotAuthorised | Rejected | Unsupported => Self::Refusal,
            _ => Self::Outage,
        }
    }
}

/// Counts the watches that fail, and tells the log when the first begins to and the last is over
/// it: one line for each change of state, not for each attempt of each service.
#[derive(Debug)]
pub(super) struct Ledger {
    book: Mutex<Book>,
    logs: bool,
}

#[derive(Debug)]
struct Book {
    status: ProviderStatus,
    outage: Count,
    refusal: Count,
}

/// The watches that fail in one way.
#[derive(Debug, Default)]
struct Count {
    now: usize,
    most: usize,
    since: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(provider: Arc<str>, logs: bool) -> Self {
        Self {
            book: Mutex::new(Book {
                status: ProviderStatus {
                    provider,
                    watches: 0,
                    failing: 0,
                    last_success: None,
                    last_error: None,
                    answers: 0,
                    failures: 0,
                    reconnects: 0,
                },
                outage: Count::default(),
                refusal: Count::default(),
            }),
            logs,
        }
    }

    pub(super) fn status(&self) -> ProviderStatus {
        self.book().status.clone()
    }

    pub(super) fn joined(&self) {
        self.book().status.watches += 1;
    }

    pub(super) fn left(&self, failing: Option<Sort>) {
        let mut book = self.book();
        book.status.watches -= 1;
        // What nobody asks for any more neither fails nor recovers.
        if let Some(sort) = failing {
            book.status.failing -= 1;
            let count = book.count(sort);
            count.now -= 1;
            if count.now == 0 {
                *count = Count::default();
            }
        }
    }

    pub(super) fn reconnecting(&self) {
        self.book().status.reconnects += 1;
    }

    /// A watch has answered; `before` is how it failed until now.
    pub(super) fn succeeded(&self, before: Option<Sort>) {
        let mut book = self.book();
        book.status.last_success = Some(Instant::now());
        book.status.answers += 1;
        if let Some(sort) = before {
            book.status.failing -= 1;
            let over = book.ended(sort);
            self.tell_end(book, over);
        }
    }

    /// A watch has failed; `before` is how it failed until now.
    pub(super) fn failed(&self, subject: &str, before: Option<Sort>, error: &ProviderError) {
        let sort = Sort::of(error);
        let mut book = self.book();
        book.status.failures += 1;
        book.status.last_error = Some((Instant::now(), error.clone()));
        if before == Some(sort) {
            return;
        }
        let over = match before {
            Some(before) => book.ended(before),
            None => {
                book.status.failing += 1;
                None
            }
        };
        let count = book.count(sort);
        count.now += 1;
        count.most = count.most.max(count.now);
        let first = count.since.is_none();
        count.since.get_or_insert_with(Instant::now);
        let known = book.status.last_success.is_some();
        self.tell_end(book, over);
        if first && self.logs {
            match sort {
                Sort::Outage => tracing::warn!(
                    %error, subject, known,
                    "provider fails; the last known good answers stay"
                ),
                Sort::Refusal => tracing::warn!(%error, subject, "provider refuses"),
            }
        }
    }

    fn tell_end(&self, book: MutexGuard<'_, Book>, over: Option<Count>) {
        let provider = Arc::clone(&book.status.provider);
        // Not while the lock is held: a log may be slow.
        drop(book);
        if let Some(Count { most, since, .. }) = over
            && self.logs
        {
            let lasted = since.map(|since| since.elapsed()).unwrap_or_default();
            tracing::info!(
                provider = &*provider,
                ?lasted,
                watches = most,
                "provider answers again"
            );
        }
    }

    /// The counts are plain numbers, whole at any moment.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn count(&mut self, sort: Sort) -> &mut Count {
        match sort {
            Sort::Outage => &mut self.outage,
            Sort::Refusal => &mut self.refusal,
        }
    }

    /// One watch no longer fails in this way; if it was the last, gives how it was.
    fn ended(&mut self, sort: Sort) -> Option<Count> {
        let count = self.count(sort);
        count.now -= 1;
        (count.now == 0).then(|| std::mem::take(count))
    }
}
