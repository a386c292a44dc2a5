//! Reads response bodies of limited size, and finds out why reading failed.

use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

/// Why a body can't be read.
pub(super) enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// The connection failed, for this reason.
    Interrupted(String),
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn read(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(BodyError::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(BodyError::Interrupted(root_cause(&error))),
        }
    }
}

/// Reads what arrives within `time`, at most `limit` bytes.
pub(super) async fn read_start(
    mut response: reqwest::Response,
    limit: usize,
    time: Duration,
) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let fitting = chunk.len().min(limit - body.len());
            body.extend_from_slice(&chunk[..fitting]);
            if body.len() == limit {
                return;
            }
        }
    };
    // What has arrived until then is enough for a message.
    let _ = timeout(time, reading).await;
    body
}

/// The innermost cause, such as "Connection refused" instead of "error sending request".
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
