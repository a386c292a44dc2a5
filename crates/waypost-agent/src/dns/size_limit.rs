//! Limits responses to the size that the client accepts.

use std::collections::HashSet;

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::{RData, Record};

/// The largest datagram without EDNS (RFC 1035).
const UDP_WITHOUT_EDNS: usize = 512;

/// The maximum number of answers in a datagram without EDNS (Consul's `udp_answer_limit`).
const ANSWERS_WITHOUT_EDNS: usize = 3;

/// The largest possible UDP payload.
const MAX_UDP: usize = 65_507;

/// The smallest record: a compressed name, ten fixed bytes and an IPv4 address.
const MIN_RECORD: usize = 16;

/// The limit of a response's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeLimit {
    /// The payload size that the client announces with EDNS.
    Datagram,
    /// The 16-bit length prefix of TCP.
    Stream,
}

impl SizeLimit {
    /// The limit in bytes.
    pub(super) fn bytes(self, edns: Option<&Edns>) -> usize {
        match (self, edns) {
            (Self::Stream, _) => usize::from(u16::MAX),
            (Self::Datagram, Some(edns)) => {
                usize::from(edns.max_payload()).clamp(UDP_WITHOUT_EDNS, MAX_UDP)
            }
            (Self::Datagram, None) => UDP_WITHOUT_EDNS,
        }
    }
}

/// Encodes a message with as many of its answers as fit into `limit` bytes. As in Consul, the
/// truncation flag isn't set: clients use the answers they get, and get others the next time.
pub(super) fn encode(message: &mut Message, limit: usize) -> Option<Vec<u8>> {
    let is_small = limit <= UDP_WITHOUT_EDNS && message.answers.len() > ANSWERS_WITHOUT_EDNS;
    if is_small {
        keep_answers(message, ANSWERS_WITHOUT_EDNS);
    }
    if message.answers.len() <= limit / MIN_RECORD {
        match encode_within(message, limit) {
            Some(bytes) => return Some(bytes),
            None if message.answers.is_empty() => return None,
            None => {}
        }
    }
    // Binary search for the number of answers that fit.
    let (mut fits, mut too_many) = (0, message.answers.len().min(limit / MIN_RECORD + 1));
    let whole = message.clone();
    while too_many - fits > 1 {
        let count = fits + (too_many - fits) / 2;
        message.clone_from(&whole);
        keep_answers(message, count);
        match encode_within(message, limit) {
            Some(_) => fits = count,
            None => too_many = count,
        }
    }
    message.clone_from(&whole);
    keep_answers(message, fits);
    encode_within(message, limit)
}

/// The whole message, if it fits.
fn encode_within(message: &Message, limit: usize) -> Option<Vec<u8>> {
    const TRUNCATED: u8 = 0x02;
    let bytes = message.to_vec().ok()?;
    // A message of more than 64 KiB is encoded as far as it fits, with this flag and half a record at the end.
    let is_whole = bytes.get(2).is_some_and(|flags| flags & TRUNCATED == 0);
    (is_whole && bytes.len() <= limit).then_some(bytes)
}

/// Keeps the first `count` answers, and the additional records with the addresses of their targets,
/// without duplicates.
fn keep_answers(message: &mut Message, count: usize) {
    message.answers.truncate(count);
    let targets: HashSet<_> = message.answers.iter().filter_map(target).cloned().collect();
    let mut seen = HashSet::new();
    message.additionals.retain(|record| {
        let is_address = matches!(record.data, RData::A(_) | RData::AAAA(_) | RData::CNAME(_));
        is_address && targets.contains(&record.name) && seen.insert(record.data.clone())
    });
}

fn target(record: &Record) -> Option<&hickory_proto::rr::Name> {
    match &record.data {
        RData::SRV(srv) => Some(&srv.target),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    /// A response of 19 bytes with 16 more for each answer.
    fn response(answers: u32) -> Message {
        let name = Name::from_ascii("a.").unwrap();
        let mut message = Message::response(1, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        for number in 0..answers {
            let address = A(std::net::Ipv4Addr::from(number));
            message.add_answer(Record::from_rdata(name.clone(), 0, RData::A(address)));
        }
        message
    }

    #[test]
    fn a_response_has_as_many_answers_as_fit() {
        for (answers, limit, expected) in [
            (0, 512, 0),
            (3, 512, 3),
            (4, 512, 3),
            (4, 513, 4),
            (31, 515, 31),
            (32, 515, 31),
            (63, 1027, 63),
            (64, 1027, 63),
            (500, 1026, 62),
        ] {
            let mut message = response(answers);
            let bytes = encode(&mut message, limit).unwrap();
            assert!(bytes.len() <= limit);
            assert_eq!(bytes.len(), 19 + 16 * expected, "{answers} in {limit}");
            assert_eq!(message.answers, response(answers).answers[..expected]);
        }
        assert_eq!(encode(&mut response(0), 18), None);
    }

    #[test]
    fn a_response_over_tcp_has_whole_records_only() {
        for answers in [3000, 5000, 9000] {
            let mut message = response(answers);
            let bytes = encode(&mut message, 65_535).unwrap();
            let decoded = Message::from_vec(&bytes).unwrap();
            assert!(!decoded.metadata.truncation, "{answers}");
            let kept = decoded.answers.len() as u32;
            assert_eq!(decoded.answers, response(kept).answers);
            assert_eq!(
                decoded.to_vec().unwrap(),
                bytes,
                "nothing after the last record"
            );
            let one_more = encode_within(&response(kept + 1), 65_535);
            assert!(kept == answers || one_more.is_none(), "{kept} of {answers}");
        }
    }

    #[test]
    fn the_limit_is_that_of_the_transport_and_the_client() {
        let announced = |size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        };
        assert_eq!(SizeLimit::Datagram.bytes(None), 512);
        assert_eq!(SizeLimit::Datagram.bytes(Some(&announced(511))), 512);
        assert_eq!(SizeLimit::Datagram.bytes(Some(&announced(1232))), 1232);
        assert_eq!(SizeLimit::Datagram.bytes(Some(&announced(65_535))), 65_507);
        assert_eq!(SizeLimit::Stream.bytes(Some(&announced(1232))), 65_535);
    }
}
