//! Keys for consistent hashing.

/// A value that related requests have in common, such as a user's name or a session's id.
/// [`ConsistentHash`](crate::balance::ConsistentHash) sends requests with the same key to the same
/// endpoint.
///
/// The same bytes are the same key in every process and on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub(crate) u64);

impl Key {
    /// The key for these bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(hash(0, bytes.as_ref()))
    }
}

/// FNV-1a, finished with SplitMix64's mixer. It doesn't resist attacks: a client that chooses its key
/// can choose the endpoint. Bounded loads limit the damage.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    mix(fnv)
}

pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// During an upgrade, clients of both releases must agree on the owners of keys.
    #[test]
    fn the_hash_of_a_key_is_the_same_in_every_release() {
        for (seed, bytes, expected) in [
            (0, "user-7", 0x9e12_4c98_a398_664e),
            (1, "user-7", 0x1300_2bf8_61cd_4034),
            (0, "", 0xf52a_15e9_a9b5_e89b),
        ] {
            assert_eq!(hash(seed, bytes.as_bytes()), expected, "{seed} {bytes:?}");
        }
    }
}
