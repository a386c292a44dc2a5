//! Tower: a layer that sends each request to an instance of a service, and a
//! [`Discover`](tower::discover::Discover) stream.
//!
//! The instance is picked in `call` instead of being reserved in `poll_ready`, because a reserved
//! instance may be gone by the time of the call. `examples/tower_client.rs` is a complete client.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use tower::{BoxError, Layer, Service, ServiceExt};
use waypost_core::{Instance, InstanceId, ServiceAddress};

/// One change in the stream that [`changes`] returns.
pub use tower::discover::Change;

use super::leased_body::LeasedBody;
use super::retry::{Call, Failure, HttpClient, RetryBudget, RetryPolicy, send, was_never_sent};
use crate::balance::{Balancer, Key};
use crate::directory::Subscription;
use crate::snapshot::Snapshot;

/// Wraps an HTTP client so that its requests go to instances of one service.
///
/// The scheme and host of a request's URI are replaced, and its path is appended to the instance's
/// base path. The outcome is recorded for outlier detection: an error is a failure, and a response is
/// classified by [`classify`](super::http::classify).
///
/// An attempt has at most 15 s until the head of the response arrives; see [`policy`](Self::policy). Then
/// an instance that hangs is ejected, and the request is retried at another one. A timeout above this layer
/// cancels the request, which outlier detection counts as abandoned.
///
/// A request with a [`Key`] among its extensions goes to the key's instance, if the strategy is
/// [`ConsistentHash`](crate::balance::ConsistentHash).
///
/// A request counts as in flight until the body of its response ends or is dropped.
pub struct BalanceLayer<B> {
    shared: Arc<Shared>,
    copy: Copy<B>,
    policy: RetryPolicy,
}

struct Shared {
    balancer: Balancer,
    address: ServiceAddress,
    budget: RetryBudget,
}

type Copy<B> = fn(&Request<B>) -> Option<Request<B>>;

impl<B> BalanceLayer<B> {
    /// Sends each request once, without retries.
    pub fn new(balancer: Balancer) -> Self {
        Self::with(balancer, |_| None)
    }

    /// Sets how many attempts a request has, their time limit, and whether there are retries after a
    /// response or hedges. With [`new`](Self::new), only the time limit counts.
    #[must_use]
    pub fn policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    fn with(balancer: Balancer, copy: Copy<B>) -> Self {
        let address = ServiceAddress::of(balancer.service().clone());
        Self {
            shared: Arc::new(Shared {
                balancer,
                address,
                budget: RetryBudget::new(),
            }),
            copy,
            policy: RetryPolicy::new(),
        }
    }
}

impl<B: Clone> BalanceLayer<B> {
    /// Retries a request that failed without a response at up to two other instances, provided that it
    /// was never sent or that its method is idempotent; a [policy](Self::policy) changes that. Retries are
    /// limited to a fifth of the requests.
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
            policy: self.policy.clone(),
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

/// The service that [`BalanceLayer`] creates from an HTTP client.
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
    /// The balancer that picks the instances.
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
    R: Body + 'static,
{
    type Response = Response<LeasedBody<R>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<LeasedBody<R>>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = self.layer.clone();
        let path = request.uri().path_and_query();
        let http = Http {
            inner: self.inner.clone(),
            copy: layer.copy,
            path: path.map_or("/", |path| path.as_str()).to_owned(),
        };
        async move {
            let call = Call {
                balancer: &layer.shared.balancer,
                address: &layer.shared.address,
                key: request.extensions().get::<Key>().copied(),
                policy: &layer.policy,
                budget: &layer.shared.budget,
            };
            let (response, lease) = send(http, call, request).await?;
            Ok(response.map(|body| LeasedBody::new(body, lease)))
        }
        .boxed()
    }
}

/// The HTTP client below the layer, with the path of the request.
struct Http<S, B> {
    inner: S,
    copy: Copy<B>,
    path: String,
}

impl<S, B, R> HttpClient for Http<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
{
    type Request = Request<B>;
    type Response = Response<R>;
    type Error = BoxError;
    type Sending = BoxFuture<'static, Result<Response<R>, Failure<BoxError>>>;

    fn method(request: &Request<B>) -> &Method {
        request.method()
    }

    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
        (self.copy)(request)
    }

    fn start(
        &self,
        mut request: Request<B>,
        instance: &Instance,
        _: &str,
    ) -> Result<Self::Sending, BoxError> {
        *request.uri_mut() = Uri::try_from(instance.url_for(&self.path))?;
        let response = self.inner.clone().oneshot(request);
        Ok(async {
            response.await.map_err(|error| {
                let error: BoxError = error.into();
                if was_never_sent(&*error) {
                    Failure::NotSent(error)
                } else {
                    Failure::Lost(error)
                }
            })
        }
        .boxed())
    }

    fn head(response: &Response<R>) -> (StatusCode, &HeaderMap) {
        (response.status(), response.headers())
    }
}

/// A stream of changes for Tower's own balancers: one for each instance that becomes ready, changes or
/// is no longer ready. It never fails and never ends.
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
        let current: Instances = snapshot
            .ready()
            .iter()
            .map(|endpoint| endpoint.instance())
            .map(|instance| (instance.id().clone(), Arc::clone(instance)))
            .collect();
        let changes = difference(&known, &current);
        Some((
            stream::iter(changes.into_iter().map(Ok)),
            (subscription, current),
        ))
    })
    .flatten()
}

type Instances = BTreeMap<InstanceId, Arc<Instance>>;

fn difference(known: &Instances, current: &Instances) -> Vec<Change<InstanceId, Arc<Instance>>> {
    let removed = known.keys().filter(|id| !current.contains_key(*id));
    let mut changes: Vec<_> = removed.map(|id| Change::Remove(id.clone())).collect();
    for (id, instance) in current {
        if known.get(id) != Some(instance) {
            changes.push(Change::Insert(id.clone(), Arc::clone(instance)));
        }
    }
    changes
}
