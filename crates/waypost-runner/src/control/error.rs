//! The errors of the API, as `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::SupervisorError;

/// An error with its status and a sentence for people.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    pub(super) detail: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl From<SupervisorError> for ApiError {
    fn from(error: SupervisorError) -> Self {
        let status = match &error {
            SupervisorError::UnknownService { .. } => StatusCode::NOT_FOUND,
            SupervisorError::NameTaken { .. } | SupervisorError::ShuttingDown => {
                StatusCode::CONFLICT
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, headers, body.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_status_of_its_cause() {
        let io = || SupervisorError::Io {
            action: "start",
            source: std::io::Error::other("x"),
        };
        for (error, status) in [
            (
                SupervisorError::UnknownService {
                    name: "wbe".to_owned(),
                    known: vec!["web".to_owned()],
                },
                404,
            ),
            (
                SupervisorError::NameTaken {
                    service: "web".to_owned(),
                    name: "web-2".to_owned(),
                },
                409,
            ),
            (SupervisorError::ShuttingDown, 409),
            (io(), 500),
        ] {
            let text = error.to_string();
            let error = ApiError::from(error);
            assert_eq!((error.status.as_u16(), &error.detail), (status, &text));
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status);
            let kind = &response.headers()[header::CONTENT_TYPE];
            assert_eq!(kind, "application/problem+json");
        }
    }
}
