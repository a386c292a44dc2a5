//! `/v1/txn`: several operations on keys that happen together or not at all.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::router::{Handler, Route};
use crate::decode;
use crate::store::{Entry, KvVerb, OperationFault};

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
struct Outcome {
    results: Option<Vec<Found>>,
    errors: Option<Vec<Fault>>,
    #[serde(flatten)]
    freshness: Option<Freshness>,
}

#[derive(Serialize)]
struct Found {
    #[serde(rename = "KV")]
    entry: Arc<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fault {
    op_index: usize,
    what: String,
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
    let operations = decode::parse(&call.body)
        .and_then(decode::operations)
        .map_err(|fault| Refusal::bad_request(format!("Failed to parse body: {fault}")))?;
    let count = operations.len();
    if count > MOST_OPERATIONS {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Transaction contains too many operations ({count} > {MOST_OPERATIONS})"),
        ));
    }
    call.refuse_elsewhere()?;
    // An unknown verb writes nothing.
    let only_reads = operations
        .iter()
        .all(|operation| KvVerb::parse(&operation.verb).is_none_or(KvVerb::is_read));
    let now = Instant::now();
    let done = call
        .app
        .store
        .write(|state, changes| state.transact(&operations, now, changes));
    let (status, results, errors) = match done {
        Ok(found) => (StatusCode::OK, Some(found), None),
        Err(faults) => (StatusCode::CONFLICT, None, Some(faults)),
    };
    let outcome = Outcome {
        results: results.map(|found| found.into_iter().map(|entry| Found { entry }).collect()),
        errors: errors.map(|faults| faults.into_iter().map(Fault::from).collect()),
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

impl From<OperationFault> for Fault {
    fn from(fault: OperationFault) -> Self {
        Self {
            op_index: fault.operation,
            what: fault.what,
        }
    }
}
