//! Making an answer no larger than the client can take.

use std::collections::HashSet;

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::{RData, Record};

/// Without EDNS a datagram is this large at most (RFC 1035).
const PLAIN_UDP: usize = 512;

/// And such a small one carries this many answers at most (Consul's `udp_answer_limit`).
const PLAIN_ANSWERS: usize = 3;

/// The largest that a datagram can be.
const LARGEST_UDP: usize = 65_507;

/// The smallest record: a pointer to its name, ten bytes of head, four of address.
const SMALLEST_RECORD: usize = 16;

/// How large an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// What the client says in EDNS.
    Datagram,
    /// What the length in front of a message on a stream can say.
    Stream,
}

impl Limit {
    /// In bytes.
    pub(super) fn of(self, edns: Option<&Edns>) -> usize {
        match (self, edns) {
            (Self::Stream, _) => usize::from(u16::MAX),
            (Self::Datagram, Some(edns)) => {
                usize::from(edns.max_payload()).clamp(PLAIN_UDP, LARGEST_UDP)
            }
            (Self::Datagram, None) => PLAIN_UDP,
        }
    }
}

/// Encodes the message, with as many of its answers as fit into `limit` bytes. The others are left
/// out without a flag, as Consul does: clients take what they get, and get others the next time.
pub(super) fn encode(message: &mut Message, limit: usize) -> Option<Vec<u8>> {
    let small = limit <= PLAIN_UDP && message.answers.len() > PLAIN_ANSWERS;
    if small {
        keep(message, PLAIN_ANSWERS);
    }
    if message.answers.len() <= limit / SMALLEST_RECORD {
        match encode_within(message, limit) {
            Some(bytes) => return Some(bytes),
            None if message.answers.is_empty() => return None,
            None => {}
        }
    }
    // So many fit, so many don't.
    let (mut fits, mut too_many) = (0, message.answers.len().min(limit / SMALLEST_RECORD + 1));
    let whole = message.clone();
    while too_many - fits > 1 {
        let count = fits + (too_many - fits) / 2;
        message.clone_from(&whole);
        keep(message, count);
        match encode_within(message, limit) {
            Some(_) => fits = count,
            None => too_many = count,
        }
    }
    message.clone_from(&whole);
    keep(message, fits);
    encode_within(message, limit)
}

fn encode_within(message: &Message, limit: usize) -> Option<Vec<u8>> {
    message.to_vec().ok().filter(|bytes| bytes.len() <= limit)
}

/// Keeps the first `count` answers, and of the additional records the addresses of what these
/// point to, each once.
fn keep(message: &mut Message, count: usize) {
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
