//! Parsers of external input, for the fuzz targets of the repository. Not part of the API.

use crate::responses::HealthDecoder;

/// Parses a response to `/v1/health/service/:name`.
pub fn read_answer(body: &[u8]) {
    let (Ok(entries), Ok(service)) = (serde_json::from_slice(body), "fuzz".parse()) else {
        return;
    };
    HealthDecoder {
        service,
        tagged_address: Some("lan".to_owned()),
        passing_only: true,
        ignored: std::sync::Arc::default(),
    }
    .instances(entries);
}
