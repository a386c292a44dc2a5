//! What a response, or the lack of one, says of its instance.

use std::time::Duration;

use http::{Response, StatusCode, header};
use waypost::Outcome;

use crate::failure::FailureKind;

/// What a response says.
pub(crate) fn of_response<B>(response: &Response<B>) -> Outcome {
    let retry_after = response.headers().get(header::RETRY_AFTER);
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => {}
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {}
        status if status.is_server_error() => return Outcome::Failed,
        _ => return Outcome::Succeeded,
    }
    // A date is allowed too, but a clock that is wrong by an hour would cost the instance an hour.
    let seconds = retry_after
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok());
    Outcome::Rejected {
        retry_after: seconds.map(Duration::from_secs),
    }
}

/// What a failure says; nothing if the instance is not to blame.
pub(crate) fn of_failure(failure: FailureKind) -> Option<Outcome> {
    match failure {
        FailureKind::ConnectTimeout
        | FailureKind::Broken
        | FailureKind::BadResponse
        | FailureKind::ResponseTimeout => Some(Outcome::Failed),
        // One that refuses connections is avoided for a moment, and is as good as new when it is
        // back; an ejection would outlast its restart.
        FailureKind::Connect
        | FailureKind::Unsent
        | FailureKind::ClientStalled
        | FailureKind::ClientBody => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_blamed_for_its_own_failures_only() {
        let says = |status: u16, retry_after: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(value) = retry_after {
                response = response.header("retry-after", value);
            }
            of_response(&response.body(()).unwrap())
        };
        let rejected = |seconds: Option<u64>| Outcome::Rejected {
            retry_after: seconds.map(Duration::from_secs),
        };
        assert_eq!(says(200, None), Outcome::Succeeded);
        assert_eq!(says(404, None), Outcome::Succeeded);
        assert_eq!(says(500, Some("9")), Outcome::Failed);
        assert_eq!(says(503, None), Outcome::Failed);
        assert_eq!(says(503, Some("9")), rejected(Some(9)));
        assert_eq!(says(429, None), rejected(None));
        assert_eq!(
            says(429, Some("Wed, 21 Oct 2015 07:28:00 GMT")),
            rejected(None)
        );
        assert_eq!(of_failure(FailureKind::Broken), Some(Outcome::Failed));
        assert_eq!(of_failure(FailureKind::ClientBody), None);
    }
}
