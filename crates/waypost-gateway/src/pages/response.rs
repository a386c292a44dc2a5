//! The responses of the pages.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::response_body::ResponseBody;

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<ResponseBody> {
    respond(status, "application/json", body.to_string().into())
}

pub(super) fn respond(
    status: StatusCode,
    kind: &'static str,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
