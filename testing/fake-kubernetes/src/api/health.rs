//! Whether the server is well, and what it is.

use serde_json::json;

use crate::app::App;
use crate::http::{Reply, Status};

/// The version that the stand-in behaves as.
const VERSION: (&str, &str) = ("1", "36");

pub(super) fn answer(_app: &App, path: &str) -> Option<Result<Reply, Status>> {
    match path {
        // Etcd may be gone for a while before these notice.
        "/livez" | "/readyz" | "/healthz" => Some(Ok(Reply::text(http::StatusCode::OK, "ok"))),
        "/version" | "/version/" => Some(Ok(version())),
        _ => None,
    }
}

fn version() -> Reply {
    let (major, minor) = VERSION;
    Reply::json(
        http::StatusCode::OK,
        &json!({
            "major": major,
            "minor": minor,
            "emulationMajor": major,
            "emulationMinor": minor,
            "minCompatibilityMajor": major,
            "minCompatibilityMinor": "35",
            "gitVersion": format!("v{major}.{minor}.0+stand-in"),
            "gitCommit": "0000000000000000000000000000000000000000",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none",
            "compiler": "rustc",
            "platform": "linux/amd64",
        }),
    )
}
