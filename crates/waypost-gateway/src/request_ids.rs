//! The ids of requests.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use data_encoding::HEXLOWER;
use http::header::{HeaderMap, HeaderValue};

use crate::headers;

/// The number of hexadecimal digits of a random id.
const DIGITS: usize = 32;
/// The size of a block of memory that ids share. It is kept as long as one of them, so it is small; `BytesMut`
/// allocates blocks of equal sizes from 1 kB on.
const BLOCK: usize = 32 * DIGITS;

/// Makes the random ids of a worker's requests.
///
/// They share blocks of memory. Otherwise each would need two allocations: for its digits, and for the number
/// of its copies.
#[derive(Debug)]
pub(crate) struct RequestIds(Mutex<BytesMut>);

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(BytesMut::with_capacity(BLOCK)))
    }

    /// The request's own `X-Request-Id` if it is safe to log, otherwise a random one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let received = headers::find(headers, &headers::REQUEST_ID).filter(|id| {
            (1..=128).contains(&id.len())
                && id.as_bytes().iter().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
                })
        });
        match received {
            Some(id) => id.clone(),
            None => self.random(),
        }
    }

    fn random(&self) -> HeaderValue {
        let mut digits = [0; DIGITS];
        HEXLOWER.encode_mut(&fastrand::u128(..).to_le_bytes(), &mut digits);
        let mut block = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        block.extend_from_slice(&digits);
        let id = block.split().freeze();
        HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(ids: &RequestIds, received: &'static str) -> HeaderValue {
        let received = HeaderValue::from_static(received);
        ids.of(&HeaderMap::from_iter([(headers::REQUEST_ID, received)]))
    }

    #[test]
    fn a_request_id_that_is_unsafe_to_log_is_replaced() {
        let ids = RequestIds::new();
        assert_eq!(id_of(&ids, "a-1.b_2:c"), "a-1.b_2:c");
        for bad in ["", "a b", "a\"b"] {
            assert_eq!(id_of(&ids, bad).len(), DIGITS, "{bad:?}");
        }
    }

    #[test]
    fn random_ids_differ_and_stay_as_they_are_after_their_block_is_full() {
        let ids = RequestIds::new();
        let made: Vec<_> = (0..3 * BLOCK / DIGITS).map(|_| ids.random()).collect();
        let mut texts: Vec<_> = made.iter().map(|id| id.to_str().unwrap()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), made.len());
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(
            texts
                .iter()
                .all(|text| text.len() == DIGITS && text.bytes().all(is_digit))
        );
    }
}
