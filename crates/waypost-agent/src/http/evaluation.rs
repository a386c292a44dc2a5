//! Evaluation of expressions that clients send, such as `?filter`. It may take long, and so runs on
//! threads for blocking work, a few at a time, for a limited time, and only while the client waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::request::ApiRequest;
use super::response::ApiError;
use crate::filter::EvaluationLimit;

/// Evaluations at the same time. Further ones wait.
pub(crate) const MAX_EVALUATIONS: usize = 2;

/// The time that one evaluation may take.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Ends the evaluation when the future that waits for it is dropped.
struct CancelOnDrop(Arc<EvaluationLimit>);

/// Calls `run` on a thread for blocking work. Filters of the request end at the time limit.
pub(super) async fn evaluate<T: Send + 'static>(
    request: &ApiRequest,
    run: fn(&ApiRequest) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let permit = Arc::clone(&request.app.evaluations).acquire_owned().await;
    let limit = Arc::new(EvaluationLimit::new(TIME_LIMIT));
    let _cancel = CancelOnDrop(Arc::clone(&limit));
    let request = ApiRequest {
        evaluation_limit: Some(Arc::clone(&limit)),
        ..request.clone()
    };
    let result = spawn_blocking(move || {
        let _permit = permit;
        run(&request)
    });
    let result = result.await;
    if limit.is_exceeded() {
        return Err(ApiError::query_error(format!(
            "the filter took longer than {TIME_LIMIT:?}"
        )));
    }
    result.map_err(|error| ApiError::internal(error.to_string()))?
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
