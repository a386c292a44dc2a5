//! Classifies gRPC statuses for outlier detection.

use http::{HeaderMap, Response};
use tonic::Code;

use crate::integration::http::classify;
use crate::outlier::Outcome;

/// The outcome of a call according to the head of its response. A call that fails before its first message has
/// its status there; otherwise the head counts as a success, and the status follows in the trailers.
pub(super) fn head_outcome<B>(response: &Response<B>) -> Outcome {
    let headers = response.headers();
    status_outcome(headers).unwrap_or_else(|| classify(response.status(), headers))
}

/// The gRPC status in these headers or trailers, if there is one. Its message and details are not decoded.
pub(super) fn status_code(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// The outcome of a call according to the status in these headers or trailers; `None` if there is no status.
pub(super) fn status_outcome(headers: &HeaderMap) -> Option<Outcome> {
    Some(match status_code(headers)? {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss => Outcome::Failed,
        Code::ResourceExhausted => Outcome::Rejected { retry_after: None },
        _ => Outcome::Succeeded,
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tonic::Status;
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

    /// tonic's `Status::from_header_map` panics on them.
    #[test]
    fn details_that_are_not_base64_do_no_harm() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        trailers.insert("grpc-status-details-bin", "*".parse().unwrap());
        assert_eq!(status_outcome(&trailers), Some(Outcome::Failed));
    }

    #[test]
    fn without_a_grpc_status_the_status_of_http_counts() {
        let mut response = Response::new(Body::empty());
        assert_eq!(head_outcome(&response), Outcome::Succeeded);
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        assert_eq!(head_outcome(&response), Outcome::Failed);
    }
}
