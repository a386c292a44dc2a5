//! Classifies gRPC statuses for outlier detection.

use http::{HeaderMap, Response};
use tonic::{Code, Status};

use crate::integration::http::classify;
use crate::outlier::Outcome;

/// The outcome of a call by the head of its response. A call that fails before its first message has its
/// status there; otherwise the head is a success, and the status follows in the trailers.
pub(super) fn head_outcome<B>(response: &Response<B>) -> Outcome {
    let headers = response.headers();
    status_outcome(headers).unwrap_or_else(|| classify(response.status(), headers))
}

/// The outcome of a call by the status in these headers or trailers; `None` if there is no status.
pub(super) fn status_outcome(headers: &HeaderMap) -> Option<Outcome> {
    Some(match Status::from_header_map(headers)?.code() {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss => Outcome::Failed,
        Code::ResourceExhausted => Outcome::Rejected { retry_after: None },
        _ => Outcome::Succeeded,
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tonic::body::Body;

    use super::*;

    #[test]
    fn statuses_that_say_something_about_the_instance_are_failures() {
        for (code, outcome) in [
            (Code::Unavailable, Outcome::Failed),
            (Code::Internal, Outcome::Failed),
            (Code::Unknown, Outcome::Failed),
            (Code::DataLoss, Outcome::Failed),
            (
                Code::ResourceExhausted,
                Outcome::Rejected { retry_after: None },
            ),
            (Code::NotFound, Outcome::Succeeded),
            (Code::InvalidArgument, Outcome::Succeeded),
        ] {
            let status = Status::new(code, "why");
            let response = status.into_http::<Body>();
            assert_eq!(head_outcome(&response), outcome, "{code:?}");
        }
    }

    #[test]
    fn without_a_grpc_status_the_status_of_http_counts() {
        let mut response = Response::new(Body::empty());
        assert_eq!(head_outcome(&response), Outcome::Succeeded);
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        assert_eq!(head_outcome(&response), Outcome::Failed);
    }
}
