//! The task of a reflector: what it does next, and when it tries again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use waypost_core::supervision::Backoff;

use super::{Change, Marks, Selection};
use crate::access::READ;
use crate::connection::Connection;
use crate::events::Events;
use crate::fault::Fault;
use crate::wire::Object;

pub(super) struct Work {
    pub(super) connection: Arc<Connection>,
    pub(super) path: String,
    namespace: Arc<str>,
    pub(super) only: Option<(&'static str, String)>,
    pub(super) marks: Arc<Marks>,
    orders: watch::Receiver<u64>,
    started_over: u64,
    /// Where to go on from; `None` if all is to be listed.
    pub(super) position: Option<Box<str>>,
    /// The open watch.
    pub(super) events: Option<Events>,
    paused_until: Option<Instant>,
    /// When a watch that was opened after a failure counts as live, if nothing is heard before.
    pub(super) settles_at: Option<Instant>,
    pub(super) failing: bool,
    /// Whether a list may come as a watch.
    pub(super) can_stream: bool,
    /// How many attempts in a row were refused.
    pub(super) refusals: u32,
    /// When 410 was answered last.
    gone_at: Option<Instant>,
    pub(super) backoff: Backoff,
}

impl Work {
    /// The longest pause that a server is granted; what stands before it may ask for any.
    const LONGEST_WAIT: Duration = Duration::from_secs(30);

    pub(super) fn new(
        connection: Arc<Connection>,
        path: String,
        selection: &Selection,
        marks: Arc<Marks>,
        orders: watch::Receiver<u64>,
    ) -> Self {
        Self {
            connection,
            path,
            namespace: Arc::clone(&selection.namespace),
            only: selection.only.clone(),
            marks,
            orders,
            started_over: 0,
            position: None,
            events: None,
            paused_until: None,
            settles_at: None,
            failing: false,
            can_stream: true,
            refusals: 0,
            gone_at: None,
            backoff: Backoff::default(),
        }
    }

    pub(super) async fn next<T: Object>(&mut self) -> Change<T> {
        loop {
            let mut orders = self.orders.clone();
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let times = *orders.borrow_and_update();
                    self.orders = orders;
                    self.obey(times);
                }
                change = self.step() => match change {
                    Ok(Some(Change::Frozen(items, fault))) => {
                        return match self.failed(fault).await {
                            Some(fault) => Change::Frozen(items, fault),
                            None => Change::Whole(items),
                        };
                    }
                    Ok(Some(change)) => return change,
                    Ok(None) => {}
                    Err(fault) => if let Some(fault) = self.failed(fault).await {
                        return Change::Failed(fault);
                    }
                }
            }
        }
    }

    fn obey(&mut self, started_over: u64) {
        self.events = None;
        self.paused_until = None;
        if started_over != std::mem::replace(&mut self.started_over, started_over) {
            self.position = None;
        }
    }

    /// One step. An order may cut it short anywhere, so what it leaves behind is always whole.
    async fn step<T: Object>(&mut self) -> Result<Option<Change<T>>, Fault> {
        if let Some(until) = self.paused_until {
            sleep_until(until).await;
            self.paused_until = None;
        }
        match (&self.events, &self.position) {
            (Some(_), _) => self.read().await,
            (None, Some(_)) => self.resume().await.map(|()| None),
            (None, None) => self.list().await.map(Some),
        }
    }

    /// Decides when to try again. Gives back what is to be told.
    async fn failed(&mut self, fault: Fault) -> Option<Fault> {
        self.events = None;
        self.settles_at = None;
        if fault.is_refusal() {
            self.refusals = self.refusals.saturating_add(1);
        }
        if fault.is_gone() {
            self.position = None;
            let again = self.gone_at.replace(Instant::now());
            if again.is_none_or(|earlier| earlier.elapsed() > Duration::from_secs(5)) {
                // Nothing is wrong with the server; but not all clients in the same instant.
                self.pause(Duration::from_millis(100).mul_f64(fastrand::f64()));
                return None;
            }
        }
        self.failing = true;
        let step = self.backoff.next_delay();
        let asked_for = fault.retry_after.unwrap_or_default();
        self.pause(step.max(asked_for.min(Self::LONGEST_WAIT)));
        Some(self.connection.explain(&self.namespace, &READ, fault).await)
    }

    pub(super) fn pause(&mut self, time: Duration) {
        self.paused_until = Some(Instant::now() + time);
    }

    pub(super) fn succeeded(&mut self) {
        self.failing = false;
        self.settles_at = None;
        self.refusals = 0;
        self.backoff.reset();
    }
}
