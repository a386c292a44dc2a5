//! Answers one DNS message.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};

use super::name::{Zone, zone};
use super::resolver::Resolver;
use super::size_limit::{SizeLimit, encode};
use crate::app::App;

/// The response to a message. `None` if the message isn't a query; otherwise two servers could answer
/// each other endlessly.
pub(crate) fn respond(app: &App, received: &[u8], limit: SizeLimit) -> Option<Vec<u8>> {
    let request = match Message::from_vec(received) {
        Ok(request) => request,
        Err(_) => return malformed(received),
    };
    if request.metadata.message_type == MessageType::Response {
        return None;
    }
    let mut response = answer(app, &request);
    let limit = limit.bytes(request.edns.as_ref());
    encode(&mut response, limit)
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
    message.edns = request.edns.as_ref().map(response_edns);
    let mut resolver = Resolver {
        app,
        kind,
        has_edns: request.edns.is_some(),
        authorized: !app.auth.has_token(),
        message,
    };
    if app.faults.is_failing() {
        resolver.fail();
        return resolver.message;
    }
    resolver.message.metadata.authoritative = true;
    match zone {
        Zone::Consul(labels) => resolver.resolve(name, &labels),
        Zone::Reverse(address) => resolver.resolve_reverse(name, address),
        Zone::Foreign => {}
    }
    resolver.message
}

/// Repeats the payload size of the query.
fn response_edns(query: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(query.max_payload());
    edns
}

/// `FORMERR` for a message that has at least a header and isn't a response.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_can_not_be_read_gets_an_error_and_a_response_gets_none() {
        let header = |flags: u8, length: usize| {
            let mut bytes = vec![0; length];
            bytes[..3].copy_from_slice(&[0xab, 0xcd, flags]);
            bytes
        };
        for query in [header(0, 12), header(0x7f, 12), header(0x01, 100)] {
            let response = malformed(&query).unwrap();
            let response = Message::from_vec(&response).unwrap();
            assert_eq!(response.metadata.id, 0xabcd);
            assert_eq!(response.metadata.response_code, ResponseCode::FormErr);
        }
        for other in [header(0, 11), header(0x80, 12), header(0xff, 100), vec![]] {
            assert_eq!(malformed(&other), None, "{other:?}");
        }
    }
}
