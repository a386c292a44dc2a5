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

fn encode_within(message: &Message, limit: usize) -> Option<Vec<u8>> {
    message.to_vec().ok().filter(|bytes| bytes.len() <= limit)
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
