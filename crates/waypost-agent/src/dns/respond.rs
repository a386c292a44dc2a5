//! From a question to its answer.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};

use super::answering::Answering;
use super::fit;
use super::question::{Zone, zone};
use crate::app::App;

/// Answers a datagram or a message of a stream. Nothing if it isn't a question, so that two
/// servers never talk to each other for ever.
pub(crate) fn respond(app: &App, received: &[u8], limit: fit::Limit) -> Option<Vec<u8>> {
    let request = match Message::from_vec(received) {
        Ok(request) => request,
        Err(_) => return malformed(received),
    };
    if request.metadata.message_type == MessageType::Response {
        return None;
    }
    let mut answer = answer(app, &request);
    let limit = limit.of(request.edns.as_ref());
    fit::encode(&mut answer, limit)
}

fn answer(app: &App, request: &Message) -> Message {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata = Metadata::response_from_request(&request.metadata);
    message.queries.clone_from(&request.queries);
    let code = &mut message.metadata.response_code;
    let [query] = request.queries.as_slice() else {
        *code = ResponseCode::FormErr;
        return message;
    };
    if !matches!(request.metadata.op_code, OpCode::Query | OpCode::Notify) {
        *code = ResponseCode::NotImp;
        return message;
    }
    let (name, kind) = (query.name(), query.query_type());
    let zone = zone(name);
    if zone == Zone::Foreign {
        *code = ResponseCode::Refused;
        return message;
    }
    message.edns = request.edns.as_ref().map(edns_like);
    let mut answering = Answering {
        app,
        kind,
        has_edns: request.edns.is_some(),
        sees: !app.guard.has_token(),
        message,
    };
    if app.faults.fails() {
        answering.fail();
        return answering.message;
    }
    answering.message.metadata.authoritative = true;
    match zone {
        Zone::Consul(labels) => answering.in_zone(name, &labels),
        Zone::Reverse(address) => answering.reverse(name, address),
        Zone::Foreign => {}
    }
    answering.message
}

/// The client's own word on sizes, back to it.
fn edns_like(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(asked.max_payload());
    edns
}

/// What is no message but has the length of a header is told so, unless it is an answer.
fn malformed(received: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const RESPONSE_BIT: u8 = 0x80;
    let (id, flags) = (received.get(..2)?, received.get(2)?);
    if received.len() < HEADER || flags & RESPONSE_BIT != 0 {
        return None;
    }
    let id = u16::from_be_bytes([id[0], id[1]]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
        .to_vec()
        .ok()
}
