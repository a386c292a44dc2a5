//! Makes the attempts of one request.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use waypost_core::{Error, Instance, ServiceAddress};

use super::super::http::classify;
use super::budget::RetryBudget;
use super::pick::pick_for;
use super::policy::{AttemptTimeout, RetryPolicy};
use crate::balance::{Balancer, Key, Lease};
use crate::integration::span::AttemptSpan;
use crate::outlier::Outcome;

/// The operations of an HTTP client that attempts need.
pub(crate) trait HttpClient {
    type Request;
    type Response;
    type Error: From<Error> + From<AttemptTimeout>;
    type Sending: Future<Output = Result<Self::Response, Failure<Self::Error>>>;

    fn method(request: &Self::Request) -> &Method;

    /// A copy of the request for another attempt; `None` if its body can be sent only once.
    fn copy(&self, request: &Self::Request) -> Option<Self::Request>;

    /// Starts to send the request to this instance, which has this URL.
    fn start(
        &self,
        request: Self::Request,
        instance: &Instance,
        url: &str,
    ) -> Result<Self::Sending, Self::Error>;

    /// The head of a response.
    fn head(response: &Self::Response) -> (StatusCode, &HeaderMap);
}

/// Why an attempt got no response.
#[cfg_attr(
    not(feature = "reqwest"),
    allow(dead_code, reason = "only reqwest has them all")
)]
pub(crate) enum Failure<E> {
    /// The request is not valid, which is not the instance's fault.
    InvalidRequest(E),
    /// No connection was made, so the instance has not received the request.
    NotSent(E),
    /// It is unknown whether the instance has processed the request.
    Lost(E),
    /// No response within the time limit of the attempt.
    TimedOut(E),
    /// The time limit of the whole request has passed.
    OutOfTime(E),
}

impl<E> Failure<E> {
    fn into_error(self) -> E {
        match self {
            Self::InvalidRequest(error)
            | Self::NotSent(error)
            | Self::Lost(error)
            | Self::TimedOut(error)
            | Self::OutOfTime(error) => error,
        }
    }

    fn may_retry(&self, method: &Method) -> bool {
        match self {
            Self::NotSent(_) => true,
            Self::Lost(_) | Self::TimedOut(_) => method.is_idempotent(),
            Self::InvalidRequest(_) | Self::OutOfTime(_) => false,
        }
    }

    /// The value of `error.type` in a span.
    fn kind(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::NotSent(_) => "connect",
            Self::Lost(_) => "connection_lost",
            Self::TimedOut(_) | Self::OutOfTime(_) => "timeout",
        }
    }
}

/// Whether no connection was made: refused, unreachable, timed out while connecting, a host name that
/// doesn't resolve, or a failed TLS handshake.
pub(crate) fn was_never_sent(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "tower")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect();
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return error.is_connect();
    }
    // For other clients, only the operating system's error is known.
    let is_unconnected = |error: &io::Error| {
        use io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        };
        matches!(
            error.kind(),
            AddrNotAvailable
                | ConnectionRefused
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
        )
    };
    match error.downcast_ref::<io::Error>() {
        Some(error) if is_unconnected(error) => true,
        _ => error.source().is_some_and(was_never_sent),
    }
}

/// The parameters of a request.
pub(crate) struct Call<'a> {
    pub(crate) balancer: &'a Balancer,
    pub(crate) address: &'a ServiceAddress,
    pub(crate) key: Option<Key>,
    pub(crate) policy: &'a RetryPolicy,
    pub(crate) budget: &'a RetryBudget,
}

/// A response, and the lease of the attempt that got it, whose outcome is recorded.
pub(crate) type Sent<C> = (<C as HttpClient>::Response, Lease);

/// Sends a request, with as many attempts as its policy allows and the outcomes require. Attempts that
/// are still under way when a response has arrived are cancelled.
pub(crate) async fn send<C: HttpClient>(
    client: C,
    call: Call<'_>,
    request: C::Request,
) -> Result<Sent<C>, C::Error> {
    call.budget.deposit();
    let (policy, method) = (call.policy, C::method(&request).clone());
    let mut hedge_after = policy.hedge_after.filter(|_| method.is_idempotent());
    let mut attempts = Attempts {
        client,
        call: &call,
        method: method.clone(),
        tried: Vec::new(),
        next: Some(request),
    };
    let limit = policy.attempt_timeout;
    let run = |started: Option<Started<C>>| started.map(|started| attempt(started, limit));
    let mut running = FuturesUnordered::new();
    running.extend(run(attempts.start().await?));
    loop {
        let hedge_at = hedge_after.filter(|_| attempts.may_hedge());
        let hedge_at = hedge_at.map(|delay| Instant::now() + delay);
        // Nothing that holds a response is kept across an await: a body needn't be `Send`.
        let next = tokio::select! {
            biased;
            Some(finished) = running.next() => match attempts.next_step(finished, running.is_empty()) {
                Step::Done(result) => return result,
                Step::Wait => continue,
                Step::RetryAfter(pause) => Some(pause),
            },
            () = until(hedge_at) => None,
        };
        match next {
            Some(pause) => {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                call.balancer.metrics().retried();
                running.extend(run(attempts.start().await?));
            }
            None => {
                if call.budget.withdraw()
                    && let Ok(started) = attempts.start().await
                {
                    call.balancer.metrics().hedged();
                    running.extend(run(started));
                } else {
                    hedge_after = None;
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The attempts of one request.
struct Attempts<'a, C: HttpClient> {
    client: C,
    call: &'a Call<'a>,
    method: Method,
    /// The instances of the attempts so far.
    tried: Vec<waypost_core::InstanceId>,
    /// The request for the next attempt; `None` if there may be no other.
    next: Option<C::Request>,
}

impl<C: HttpClient> Attempts<'_, C> {
    /// Picks an instance and starts an attempt on it; `None` if there may be no other attempt.
    async fn start(&mut self) -> Result<Option<Started<C>>, C::Error> {
        let Some(request) = self.next.take() else {
            return Ok(None);
        };
        let Call {
            balancer,
            address,
            key,
            policy,
            ..
        } = *self.call;
        let (lease, url) = pick_for(balancer, address, key, &self.tried).await?;
        let resends = self.tried.len();
        if resends + 1 < policy.attempts {
            self.next = self.client.copy(&request);
        }
        self.tried.push(lease.id().clone());
        let span = AttemptSpan::http(&self.method, address.service(), &lease, resends);
        let sending = self.client.start(request, &lease, &url)?;
        Ok(Some(Started {
            sending,
            lease,
            span,
        }))
    }

    /// Records the outcome of an attempt, and decides what follows. `is_last` means that no other attempt is
    /// under way.
    fn next_step(&self, (lease, result): Finished<C>, is_last: bool) -> Step<C> {
        let may_retry = || self.next.is_some() && self.call.budget.withdraw();
        match result {
            Ok(response) => {
                let (status, headers) = C::head(&response);
                let outcome = classify(status, headers);
                lease.record(outcome);
                match self.pause(status, outcome) {
                    // A hedge may still succeed.
                    Some(_) if !is_last => Step::Wait,
                    Some(pause) if may_retry() => Step::RetryAfter(pause),
                    _ => Step::Done(Ok((response, lease))),
                }
            }
            Err(failure) => {
                if !matches!(failure, Failure::InvalidRequest(_)) {
                    lease.record(Outcome::Failed);
                }
                if failure.may_retry(&self.method) && may_retry() {
                    Step::RetryAfter(Duration::ZERO)
                } else if is_last {
                    Step::Done(Err(failure.into_error()))
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// Whether a hedge may be sent: only to an instance that has not been tried yet.
    fn may_hedge(&self) -> bool {
        self.next.is_some() && self.call.balancer.candidate_count() > self.tried.len()
    }

    /// The pause before another attempt after this response; `None` if the policy returns the response.
    fn pause(&self, status: StatusCode, outcome: Outcome) -> Option<Duration> {
        let is_refusal = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        if !is_refusal || !self.method.is_idempotent() {
            return None;
        }
        let retry_after = match outcome {
            Outcome::Rejected { retry_after } => retry_after,
            _ => None,
        };
        self.call.policy.pause(retry_after, self.tried.len())
    }
}

/// What follows an attempt that has ended.
enum Step<C: HttpClient> {
    Done(Result<Sent<C>, C::Error>),
    /// Another attempt after a pause.
    RetryAfter(Duration),
    /// Wait for the attempts that are still under way.
    Wait,
}

/// An attempt that is under way.
struct Started<C: HttpClient> {
    sending: C::Sending,
    lease: Lease,
    span: AttemptSpan,
}

type Finished<C> = (
    Lease,
    Result<<C as HttpClient>::Response, Failure<<C as HttpClient>::Error>>,
);

async fn attempt<C: HttpClient>(started: Started<C>, limit: Option<Duration>) -> Finished<C> {
    let Started {
        sending,
        lease,
        span,
    } = started;
    let result = match limit {
        None => span.instrument(sending).await,
        Some(after) => match timeout(after, span.instrument(sending)).await {
            Ok(result) => result,
            Err(_) => {
                let instance = lease.id().clone();
                Err(Failure::TimedOut(AttemptTimeout { instance, after }.into()))
            }
        },
    };
    match &result {
        Ok(response) => span.record_response(C::head(response).0),
        Err(failure) => span.record_error(failure.kind()),
    }
    (lease, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unsent_or_idempotent_requests_are_retried() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(was_never_sent(&refused) && !was_never_sent(&reset));
        assert!(Failure::NotSent(()).may_retry(&Method::POST));
        assert!(!Failure::Lost(()).may_retry(&Method::POST));
        assert!(Failure::Lost(()).may_retry(&Method::GET));
        assert!(Failure::Lost(()).may_retry(&Method::DELETE));
        assert!(!Failure::OutOfTime(()).may_retry(&Method::GET));
    }
}
