//! Tower: a layer that sends each request to an instance of a service, and a
//! [`Discover`](tower::discover::Discover) stream.
//!
//! The instance is chosen in `call`, not reserved at `poll_ready`: a slot that was held while the
//! instances change would lead to one that has left. `examples/tower_client.rs` is a whole one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, Uri};
use tower::discover::Change;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{BoxError, Layer, Service, ServiceExt};
use waypost_core::{Instance, InstanceId, ServiceAddress};

use super::http::classify;
use super::retry::{ATTEMPTS, choose, may_repeat, retry_budget};
use crate::balance::Balancer;
use crate::directory::Subscription;
use crate::outlier::Outcome;
use crate::snapshot::Snapshot;

/// Wraps an HTTP client so that its requests go to instances of one service.
///
/// What a request's URI says of scheme and host is replaced; its path is joined to the instance's
/// own. The outcome is recorded for outlier detection: an error is a failure, and a response is
/// classified by [`classify`].
///
/// A limit of time below this layer, such as Tower's `Timeout` around the HTTP client, makes an
/// instance that hangs fail, so that it is ejected and the request goes to another. One above only
/// gives up the request, which says nothing of the instance.
pub struct BalanceLayer<B> {
    shared: Arc<Shared>,
    copy: fn(&Request<B>) -> Option<Request<B>>,
}

struct Shared {
    balancer: Balancer,
    address: ServiceAddress,
    budget: TpsBudget,
}

impl<B> BalanceLayer<B> {
    /// Sends each request once.
    pub fn new(balancer: Balancer) -> Self {
        Self::with(balancer, |_| None)
    }

    fn with(balancer: Balancer, copy: fn(&Request<B>) -> Option<Request<B>>) -> Self {
        let address = ServiceAddress::of(balancer.service().clone());
        Self {
            shared: Arc::new(Shared {
                balancer,
                address,
                budget: retry_budget(),
            }),
            copy,
        }
    }
}

impl<B: Clone> BalanceLayer<B> {
    /// Sends a request that failed without an answer to up to two more instances, if that is safe:
    /// if it never left, or if its method is idempotent. At most a fifth of the requests are
    /// retries.
    pub fn retrying(balancer: Balancer) -> Self {
        Self::with(balancer, |request| {
            let mut copy = Request::new(request.body().clone());
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.version_mut() = request.version();
            *copy.headers_mut() = request.headers().clone();
            *copy.extensions_mut() = request.extensions().clone();
            Some(copy)
        })
    }
}

impl<B> Clone for BalanceLayer<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            copy: self.copy,
        }
    }
}

impl<B> fmt::Debug for BalanceLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let balancer = &self.shared.balancer;
        f.debug_tuple("BalanceLayer").field(balancer).finish()
    }
}

impl<S, B> Layer<S> for BalanceLayer<B> {
    type Service = Balanced<S, B>;

    fn layer(&self, inner: S) -> Balanced<S, B> {
        Balanced {
            inner,
            layer: self.clone(),
        }
    }
}

/// What [`BalanceLayer`] makes of a client.
#[derive(Debug)]
pub struct Balanced<S, B> {
    inner: S,
    layer: BalanceLayer<B>,
}

impl<S: Clone, B> Clone for Balanced<S, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S, B> Balanced<S, B> {
    /// The balancer that chooses.
    pub fn balancer(&self) -> &Balancer {
        &self.layer.shared.balancer
    }
}

impl<S, B, R> Service<Request<B>> for Balanced<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    R: 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<R>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, layer) = (self.inner.clone(), self.layer.clone());
        send(inner, layer, request).boxed()
    }
}

async fn send<S, B, R>(
    inner: S,
    layer: BalanceLayer<B>,
    mut request: Request<B>,
) -> Result<Response<R>, BoxError>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    let Shared {
        balancer,
        address,
        budget,
    } = &*layer.shared;
    budget.deposit();
    let path = request.uri().path_and_query().cloned();
    let path = path.as_ref().map_or("/", |path| path.as_str());
    let mut tried = Vec::new();
    loop {
        let (lease, _) = choose(balancer, address, &tried).await?;
        *request.uri_mut() = Uri::try_from(lease.url_for(path))?;
        let spare = match tried.len() + 1 < ATTEMPTS {
            true => (layer.copy)(&request),
            false => None,
        };
        let method = request.method().clone();
        let error: BoxError = match inner.clone().oneshot(request).await {
            Ok(mut response) => {
                lease.record(classify(response.status(), response.headers()));
                // In flight until the caller is done with the answer.
                response.extensions_mut().insert(Arc::new(lease));
                return Ok(response);
            }
            Err(error) => error.into(),
        };
        lease.record(Outcome::Failed);
        match spare {
            Some(spare) if may_repeat(&method, &*error) && budget.withdraw() => request = spare,
            _ => return Err(error),
        }
        tried.push(lease.id().clone());
    }
}

/// Follows the instances of a service that take new work, for Tower's own balancers: a change for
/// each one that comes, changes or leaves. It never fails and never ends.
///
/// ```
/// # fn example(directory: &waypost::directory::Directory) -> Result<(), waypost::Invalid> {
/// use waypost::integration::tower::changes;
/// let instances = changes(directory.subscribe(&"auth".parse()?));
/// # let _ = instances; Ok(())
/// # }
/// ```
pub fn changes(
    subscription: Subscription<Snapshot>,
) -> impl Stream<Item = Result<Change<InstanceId, Arc<Instance>>, Infallible>> + Send {
    let state = (subscription, BTreeMap::new());
    stream::unfold(state, async |(mut subscription, known)| {
        let snapshot = subscription.changed().await;
        let now: Instances = snapshot
            .ready()
            .iter()
            .map(|endpoint| endpoint.instance())
            .map(|instance| (instance.id().clone(), Arc::clone(instance)))
            .collect();
        let changes = differences(&known, &now);
        Some((
            stream::iter(changes.into_iter().map(Ok)),
            (subscription, now),
        ))
    })
    .flatten()
}

type Instances = BTreeMap<InstanceId, Arc<Instance>>;

fn differences(known: &Instances, now: &Instances) -> Vec<Change<InstanceId, Arc<Instance>>> {
    let gone = known.keys().filter(|id| !now.contains_key(*id));
    let mut changes: Vec<_> = gone.map(|id| Change::Remove(id.clone())).collect();
    for (id, instance) in now {
        if known.get(id) != Some(instance) {
            changes.push(Change::Insert(id.clone(), Arc::clone(instance)));
        }
    }
    changes
}
