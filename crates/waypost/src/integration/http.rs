//! Classifies HTTP responses for outlier detection. The `reqwest`, `tower` and `tonic` integrations and
//! the gateway use the same rules.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::outlier::Outcome;

/// The outcome that a response counts as, for the instance that sent it.
///
/// | response | outcome |
/// |---|---|
/// | 429 | rejected, with the time in `Retry-After` if there is one |
/// | 503 with a valid `Retry-After` | rejected |
/// | 501, 505 | succeeded |
/// | any other 5xx | failed |
/// | anything else, 4xx included | succeeded |
///
/// `Retry-After` may be in seconds or a date (RFC 9110, section 10.2.3). A date in the past is
/// ignored, as is a malformed value. Outlier detection limits the time to
/// [`OutlierDetection::max_ejection`](crate::outlier::OutlierDetection), so a wrong clock does little harm.
///
/// 501 and 505 are not failures. They say that the server does not support the request's method or
/// HTTP version (RFC 9110, sections 15.6.2 and 15.6.6), which depends on the request and not on the
/// state of the instance. Any other instance would respond in the same way, and any client could
/// have instances ejected by sending such requests.
///
/// ```
/// use std::time::Duration;
///
/// use http::{HeaderMap, StatusCode};
/// use waypost::Outcome;
/// use waypost::integration::http::classify;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(classify(StatusCode::NOT_FOUND, &headers), Outcome::Succeeded);
/// assert_eq!(classify(StatusCode::BAD_GATEWAY, &headers), Outcome::Failed);
///
/// headers.insert("retry-after", "7".parse().unwrap());
/// let retry_after = Some(Duration::from_secs(7));
/// let outcome = classify(StatusCode::SERVICE_UNAVAILABLE, &headers);
/// assert_eq!(outcome, Outcome::Rejected { retry_after });
/// ```
pub fn classify(status: StatusCode, headers: &HeaderMap) -> Outcome {
    classify_at(status, headers, SystemTime::now)
}

fn classify_at(
    status: StatusCode,
    headers: &HeaderMap,
    now: impl FnOnce() -> SystemTime,
) -> Outcome {
    match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Outcome::Succeeded,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Rejected {
            retry_after: retry_after(headers, now),
        },
        StatusCode::SERVICE_UNAVAILABLE => match retry_after(headers, now) {
            None => Outcome::Failed,
            retry_after => Outcome::Rejected { retry_after },
        },
        status if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Succeeded,
    }
}

fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classifies a response that is received at 1994-11-06 08:49:37 GMT.
    fn outcome(status: u16, retry_after: Option<&str>) -> Outcome {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        classify_at(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    fn rejected(seconds: Option<u64>) -> Outcome {
        Outcome::Rejected {
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn server_errors_are_failures_unless_they_are_about_the_request() {
        for status in [200, 302, 400, 404, 501, 505] {
            assert_eq!(outcome(status, None), Outcome::Succeeded, "{status}");
        }
        for status in [500, 502, 503, 504, 507] {
            assert_eq!(outcome(status, None), Outcome::Failed, "{status}");
        }
        assert_eq!(outcome(500, Some("9")), Outcome::Failed);
    }

    #[test]
    fn overload_is_a_rejection() {
        assert_eq!(outcome(429, None), rejected(None));
        assert_eq!(outcome(429, Some("9")), rejected(Some(9)));
        assert_eq!(outcome(503, Some("9")), rejected(Some(9)));
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date() {
        assert_eq!(outcome(429, Some(" 120 ")), rejected(Some(120)));
        let in_100_seconds = "Sun, 06 Nov 1994 08:51:17 GMT";
        assert_eq!(outcome(503, Some(in_100_seconds)), rejected(Some(100)));
        let in_the_past = "Fri, 31 Dec 1993 23:59:59 GMT";
        for value in [in_the_past, "-3", "soon", ""] {
            assert_eq!(outcome(429, Some(value)), rejected(None), "{value}");
            assert_eq!(outcome(503, Some(value)), Outcome::Failed, "{value}");
        }
    }
}
