//! The operations of a transaction.

use bytes::Bytes;

use super::{Fault, Fields, Json};
use crate::store::{Entry, KvOperation};

/// Reads the body of `/v1/txn`. Operations on nothing are left out.
pub(crate) fn operations(json: Json<'_>) -> Result<Vec<KvOperation>, Fault> {
    let items = match json {
        Json::Array(items) => items,
        Json::Null => Vec::new(),
        other => return Err(Fault::mismatch(&other, "api.TxnOps")),
    };
    let operations = items.into_iter().map(operation);
    Ok(operations
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn operation(json: Json<'_>) -> Result<Option<KvOperation>, Fault> {
    let mut fields = Fields::of(json, "TxnOp", "api.TxnOp")?;
    let operation = fields.take_with(&["KV"], |json| on_key(json).map(Some));
    for other in ["Node", "Service", "Check"] {
        fields.take_with(&[other], |_| {
            Err::<(), _>(Fault::Words(format!(
                "this agent has no operations on {other} in transactions"
            )))
        });
    }
    fields.finish()?;
    Ok(operation)
}

fn on_key(json: Json<'_>) -> Result<KvOperation, Fault> {
    let mut fields = Fields::of(json, "KVTxnOp.KV", "api.KVTxnOp")?;
    let operation = KvOperation {
        verb: fields.take("Verb"),
        index: fields.take("Index"),
        entry: Entry {
            key: fields.take("Key"),
            value: fields.take_with(&["Value"], bytes),
            flags: fields.take("Flags"),
            session: fields.take("Session"),
            ..Entry::default()
        },
    };
    fields.take::<String>("Namespace");
    fields.finish()?;
    Ok(operation)
}

fn bytes(json: Json<'_>) -> Result<Bytes, Fault> {
    let Json::String(text) = json else {
        return Err(Fault::mismatch(&json, "[]uint8"));
    };
    let decoded = data_encoding::BASE64.decode(text.as_bytes());
    decoded.map(Bytes::from).map_err(|error| {
        let at = error.position;
        Fault::Words(format!("illegal base64 data at input byte {at}"))
    })
}
