//! What a response says about the instance that sent it.

use std::time::Duration;

use http::{Response, StatusCode, header};
use waypost::Outcome;

/// What outlier detection records for a response.
pub(crate) fn of_response<B>(response: &Response<B>) -> Outcome {
    let retry_after = response.headers().get(header::RETRY_AFTER);
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => {}
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {}
        status if status.is_server_error() => return Outcome::Failed,
        _ => return Outcome::Succeeded,
    }
    let seconds = retry_after
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok());
    Outcome::Rejected {
        retry_after: seconds.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_server_errors_and_rejections_count_against_an_instance() {
        let outcome = |status: u16, retry_after: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(value) = retry_after {
                response = response.header("retry-after", value);
            }
            of_response(&response.body(()).unwrap())
        };
        let rejected = |seconds: Option<u64>| Outcome::Rejected {
            retry_after: seconds.map(Duration::from_secs),
        };
        assert_eq!(outcome(200, None), Outcome::Succeeded);
        assert_eq!(outcome(404, None), Outcome::Succeeded);
        assert_eq!(outcome(500, Some("9")), Outcome::Failed);
        assert_eq!(outcome(503, None), Outcome::Failed);
        assert_eq!(outcome(503, Some("9")), rejected(Some(9)));
        assert_eq!(outcome(429, None), rejected(None));
        assert_eq!(
            outcome(429, Some("Wed, 21 Oct 2015 07:28:00 GMT")),
            rejected(None)
        );
    }
}
