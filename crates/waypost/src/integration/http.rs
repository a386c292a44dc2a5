//! What all HTTP clients have in common: choosing by address, judging answers, retrying.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};

use crate::{Balancer, Error, InstanceId, Invalid, Lease, Outcome, Pick, ServiceAddress};

/// Waits for the first answer, if there was none, and chooses an instance that fits the address
/// and was not tried, if there is one.
pub(crate) async fn choose(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    // A pick stays on its thread, so none is held while we wait.
    if let Ok(chosen) = fitting(balancer, address, tried) {
        return Ok(chosen);
    }
    balancer.ready().await?;
    fitting(balancer, address, tried)
}

fn fitting(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    let pick = fitting_pick(balancer, address, tried)?;
    let url = address.url_at(&pick).ok_or_else(|| misfit(address))?;
    Ok((pick.lease(), url))
}

fn fitting_pick(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<Pick, Error> {
    let mut pick = balancer.pick_except(tried)?;
    if address.rank(&pick) == Some(0) {
        return Ok(pick);
    }
    // Not all instances are alike: the best rank that any has is what we look for.
    let ready = pick.snapshot().ready().iter();
    let ranks = ready.filter_map(|endpoint| address.rank(endpoint.instance()));
    let best = ranks.min().ok_or_else(|| misfit(address))?;
    let mut avoided = tried.to_vec();
    while address.rank(&pick) != Some(best) {
        if avoided.contains(pick.id()) {
            // All that fit were tried; then one of these again.
            return balancer.pick_except(&[]);
        }
        avoided.push(pick.id().clone());
        pick = balancer.pick_except(&avoided)?;
    }
    Ok(pick)
}

fn misfit(address: &ServiceAddress) -> Error {
    let why = "no instance has such a port or speaks such a scheme";
    Invalid::new("service address", address.to_string(), why).into()
}

/// What an answer says of the endpoint. A client's own mistakes (4xx) are no failures.
pub(crate) fn outcome(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let retry_after = retry_after(headers);
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Rejected { retry_after },
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
            Outcome::Rejected { retry_after }
        }
        // It understood and says that nobody here can do it.
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Outcome::Succeeded,
        status if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Succeeded,
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3); a date that has passed is no pause at all.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(SystemTime::now()).ok()
}

/// How many endpoints a request is tried at, at most.
pub(crate) const ATTEMPTS: usize = 3;

/// Whether a request that failed without an answer may be sent again: if it never left, or if
/// doing it twice is the same as doing it once (RFC 9110, section 9.2.2).
pub(crate) fn may_repeat(method: &Method, error: &(dyn StdError + 'static)) -> bool {
    method.is_idempotent() || never_sent(error)
}

fn never_sent(error: &(dyn StdError + 'static)) -> bool {
    let refused = io::ErrorKind::ConnectionRefused;
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == refused => true,
        _ => error.source().is_some_and(never_sent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_whose_fault_they_are() {
        let none = HeaderMap::new();
        let of = |status: u16| outcome(StatusCode::from_u16(status).unwrap(), &none);
        for good in [200, 302, 404, 400, 501] {
            assert_eq!(of(good), Outcome::Succeeded, "{good}");
        }
        for bad in [500, 502, 503, 504] {
            assert_eq!(of(bad), Outcome::Failed, "{bad}");
        }
        assert_eq!(of(429), Outcome::Rejected { retry_after: None });
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let retry_after = Some(Duration::from_secs(7));
        let busy = outcome(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert_eq!(busy, Outcome::Rejected { retry_after });
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of(" 120 "), Some(Duration::from_secs(120)));
        let soon = SystemTime::now() + Duration::from_secs(100);
        let pause = of(&httpdate::fmt_http_date(soon)).unwrap();
        assert!((90..=100).contains(&pause.as_secs()), "{pause:?}");
        for none in ["Fri, 31 Dec 1999 23:59:59 GMT", "-3", "soon", ""] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn only_what_never_left_or_does_no_harm_is_repeated() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(may_repeat(&Method::POST, &refused));
        assert!(!may_repeat(&Method::POST, &reset));
        assert!(may_repeat(&Method::GET, &reset));
        assert!(may_repeat(&Method::DELETE, &reset));
    }
}
