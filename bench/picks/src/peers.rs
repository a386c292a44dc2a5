//! The balancers of pingora and tower that are measured.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, Load, PeakEwma, PendingRequests};

use crate::measure::Stopwatch;

fn addresses(count: usize) -> Vec<String> {
    let address = |index: usize| {
        format!(
            "10.{}.{}.{}:8080",
            index >> 16,
            index >> 8 & 255,
            index & 255
        )
    };
    (0..count).map(address).collect()
}

pub(crate) fn pingora<S>(count: usize) -> LoadBalancer<S>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    LoadBalancer::try_from_iter(addresses(count)).expect("valid addresses")
}

pub(crate) fn pingora_pick<S>(balancer: &LoadBalancer<S>, key: &[u8])
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    black_box(balancer.select(key, 256).expect("a backend").addr);
}

/// The work of pingora when one backend changes: it rebuilds its selection.
pub(crate) fn pingora_rebuild<S>(count: usize) -> Duration
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let addresses = addresses(count);
    let start = Stopwatch::start();
    let balancer = LoadBalancer::<S>::try_from_iter(addresses).expect("valid addresses");
    let took = start.elapsed();
    drop(balancer);
    took
}

/// Responds immediately.
#[derive(Clone)]
pub(crate) struct Nothing;

impl Service<()> for Nothing {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

pub(crate) type TowerBalance<S> = Balance<ServiceList<Vec<S>>, ()>;

pub(crate) fn tower_pending(count: usize) -> TowerBalance<PendingRequests<Nothing>> {
    let one = |_| PendingRequests::new(Nothing, CompleteOnResponse::default());
    Balance::new(ServiceList::new((0..count).map(one).collect::<Vec<_>>()))
}

pub(crate) fn tower_peak_ewma(count: usize) -> TowerBalance<PeakEwma<Nothing>> {
    let one = |_| {
        let (start, decay) = (Duration::from_millis(1), 10e9);
        PeakEwma::new(Nothing, start, decay, CompleteOnResponse::default())
    };
    Balance::new(ServiceList::new((0..count).map(one).collect::<Vec<_>>()))
}

pub(crate) fn tower_call<S>(balance: &mut TowerBalance<S>)
where
    S: Service<()> + Load,
    S::Metric: std::fmt::Debug,
    S::Error: Into<tower::BoxError>,
    S::Response: 'static,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(balance.poll_ready(&mut context).is_ready());
    let answer = balance.call(()).now_or_never();
    black_box(answer.is_some());
}
