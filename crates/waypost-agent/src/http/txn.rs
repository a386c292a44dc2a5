//! `/v1/txn`: several operations on keys and the catalog that are all applied, or none of them.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use super::unsupported::mesh_error;
use crate::decode;
use crate::store::{KvEntry, Node, Operation, OperationError, OperationResult, transact};
use crate::wire::{StoredCheck, StoredService};

/// The largest body (Consul's `txn_max_req_len`), in bytes.
const MAX_REQUEST_BYTES: usize = 512 * 1024;

const MAX_OPERATIONS: usize = 64;

pub(super) const ROUTES: &[Route] =
    &[
        Route::new("/v1/txn", &[(Method::PUT, Handler::Sync(run_transaction))])
            .with_body_limit(MAX_REQUEST_BYTES, "txn_max_req_len"),
    ];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TransactionResponse<'a> {
    results: Option<Vec<ResultView<'a>>>,
    errors: Option<Vec<ErrorView<'a>>>,
    #[serde(flatten)]
    query_meta: Option<QueryMeta>,
}

#[derive(Serialize)]
enum ResultView<'a> {
    #[serde(rename = "KV")]
    Key(&'a Arc<KvEntry>),
    Node(&'a Arc<Node>),
    Service(StoredService<'a>),
    Check(Box<StoredCheck<'a>>),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorView<'a> {
    op_index: usize,
    #[serde(rename = "What")]
    message: &'a str,
}

/// Additional fields of the response to a transaction that only reads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct QueryMeta {
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
}

fn run_transaction(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let mut operations = decode::operations(&request.body)
        .map_err(|error| ApiError::bad_request(format!("Failed to parse body: {error}")))?;
    let count = operations.len();
    if count > MAX_OPERATIONS {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Transaction contains too many operations ({count} > {MAX_OPERATIONS})"),
        ));
    }
    request.require_local_datacenter()?;
    if operations.iter().any(Operation::writes_proxy_or_gateway) {
        return Err(mesh_error());
    }
    for operation in &mut operations {
        if let Operation::Node { node, .. } = operation
            && node.datacenter.is_empty()
        {
            node.datacenter.clone_from(&request.app.datacenter);
        }
    }
    let only_reads = operations.iter().all(Operation::is_read);
    let now = Instant::now();
    let done = request
        .app
        .store
        .write(|state, changes| transact(state, &operations, now, changes));
    let (status, results, errors) = match &done {
        Ok(results) => (StatusCode::OK, Some(results), None),
        Err(errors) => (StatusCode::CONFLICT, None, Some(errors)),
    };
    let body = TransactionResponse {
        results: results.map(|results| results.iter().map(ResultView::from).collect()),
        errors: errors.map(|errors| errors.iter().map(ErrorView::from).collect()),
        query_meta: only_reads.then_some(QueryMeta {
            index: 0,
            last_contact: 0,
            known_leader: true,
            consistency_level: "",
        }),
    };
    let response = request.json(&body)?.status(status);
    Ok(if only_reads {
        response
            .header("x-consul-knownleader", "true")
            .header("x-consul-lastcontact", "0")
    } else {
        response
    })
}

impl<'a> From<&'a OperationResult> for ResultView<'a> {
    fn from(result: &'a OperationResult) -> Self {
        match result {
            OperationResult::Key(entry) => Self::Key(entry),
            OperationResult::Node(node) => Self::Node(node),
            OperationResult::Service(service) => Self::Service((&**service).into()),
            OperationResult::Check(check) => Self::Check(Box::new((&**check).into())),
        }
    }
}

impl<'a> From<&'a OperationError> for ErrorView<'a> {
    fn from(error: &'a OperationError) -> Self {
        Self {
            op_index: error.operation,
            message: &error.message,
        }
    }
}
