//! `/v1/txn`: several operations on keys and the catalog that happen together or not at all.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::call::Call;
use super::refused::no_mesh;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use crate::decode;
use crate::store::{Entry, Node, Operation, OperationFault, Shown};
use crate::wire::{StoredCheck, StoredService};

/// The largest body (Consul's `txn_max_req_len`), in bytes.
const LARGEST: usize = 512 * 1024;

const MOST_OPERATIONS: usize = 64;

pub(super) const ROUTES: &[Route] =
    &[
        Route::new("/v1/txn", &[(Method::PUT, Handler::Plain(transact))])
            .up_to(LARGEST, "txn_max_req_len"),
    ];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome<'a> {
    results: Option<Vec<Found<'a>>>,
    errors: Option<Vec<Fault<'a>>>,
    #[serde(flatten)]
    freshness: Option<Freshness>,
}

#[derive(Serialize)]
enum Found<'a> {
    #[serde(rename = "KV")]
    Key(&'a Arc<Entry>),
    Node(&'a Arc<Node>),
    Service(StoredService<'a>),
    Check(Box<StoredCheck<'a>>),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fault<'a> {
    op_index: usize,
    what: &'a str,
}

/// What is said of answers to transactions that only look.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Freshness {
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
}

fn transact(call: &Call) -> Result<Reply, Refusal> {
    let mut operations = decode::operations(&call.body)
        .map_err(|error| Refusal::bad_request(format!("Failed to parse body: {error}")))?;
    let count = operations.len();
    if count > MOST_OPERATIONS {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Transaction contains too many operations ({count} > {MOST_OPERATIONS})"),
        ));
    }
    call.refuse_elsewhere()?;
    if operations.iter().any(Operation::is_of_mesh) {
        return Err(no_mesh());
    }
    for operation in &mut operations {
        if let Operation::Node { node, .. } = operation
            && node.datacenter.is_empty()
        {
            node.datacenter.clone_from(&call.app.datacenter);
        }
    }
    let only_reads = operations.iter().all(Operation::is_read);
    let now = Instant::now();
    let done = call
        .app
        .store
        .write(|state, changes| state.transact(&operations, now, changes));
    let (status, results, errors) = match &done {
        Ok(shown) => (StatusCode::OK, Some(shown), None),
        Err(faults) => (StatusCode::CONFLICT, None, Some(faults)),
    };
    let outcome = Outcome {
        results: results.map(|shown| shown.iter().map(Found::from).collect()),
        errors: errors.map(|faults| faults.iter().map(Fault::from).collect()),
        freshness: only_reads.then_some(Freshness {
            index: 0,
            last_contact: 0,
            known_leader: true,
            consistency_level: "",
        }),
    };
    let reply = call.json(&outcome)?.status(status);
    Ok(if only_reads {
        reply
            .header("x-consul-knownleader", "true")
            .header("x-consul-lastcontact", "0")
    } else {
        reply
    })
}

impl<'a> From<&'a Shown> for Found<'a> {
    fn from(shown: &'a Shown) -> Self {
        match shown {
            Shown::Key(entry) => Self::Key(entry),
            Shown::Node(node) => Self::Node(node),
            Shown::Service(service) => Self::Service((&**service).into()),
            Shown::Check(check) => Self::Check(Box::new((&**check).into())),
        }
    }
}

impl<'a> From<&'a OperationFault> for Fault<'a> {
    fn from(fault: &'a OperationFault) -> Self {
        Self {
            op_index: fault.operation,
            what: &fault.what,
        }
    }
}
