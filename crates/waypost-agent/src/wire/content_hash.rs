//! `ContentHash`, which tells clients of `/v1/agent/service/:id` that an instance has changed.
//!
//! The value is the same as in Consul, which hashes the Go struct of the response with version 1 of
//! the library `hashstructure`. Strings and little-endian integers are hashed with FNV-1. The hash
//! of a list is a chain of the hashes of its items. The pairs of a map and the fields of a struct
//! have no order, so each is hashed with its name, and the hashes are combined by exclusive or.

use super::AgentService;

/// The hash of a field or of a whole value.
type Hash = u64;

impl AgentService<'_> {
    /// The hash in hexadecimal digits, without leading zeros.
    pub(super) fn content_hash(&self) -> String {
        let tagged_addresses = self.tagged_addresses.iter().map(|(tag, it)| {
            let fields = [("Address", text(&it.address)), ("Port", int(it.port))];
            (tag.as_str(), structure("ServiceAddress", &fields))
        });
        let weights = [
            ("Passing", int(self.weights.passing)),
            ("Warning", int(self.weights.warning)),
        ];
        let connect = self.connect.map_or(ABSENT, |connect| {
            let native = ("Native", bool(connect.native));
            structure("AgentServiceConnect", &[native, ("SidecarService", ABSENT)])
        });
        let meta = self.meta.iter().map(|(key, it)| (key.as_str(), text(it)));
        let fields = [
            ("Kind", text(self.kind)),
            ("ID", text(self.id)),
            ("Service", text(self.service)),
            ("Tags", list(self.tags.iter().map(|tag| text(tag)))),
            ("Meta", pairs(meta)),
            ("Port", int(self.port)),
            ("Address", text(self.address)),
            ("TaggedAddresses", pairs(tagged_addresses)),
            ("Weights", structure("AgentWeights", &weights)),
            ("EnableTagOverride", bool(self.enable_tag_override)),
            // Never set in a response about a single instance.
            ("CreateIndex", ABSENT),
            ("ModifyIndex", ABSENT),
            ("ContentHash", text("")),
            ("Proxy", ABSENT),
            ("Connect", connect),
        ];
        format!("{:x}", structure("AgentService", &fields))
    }
}

/// The hash of 0 and of an absent value.
const ABSENT: Hash = fnv1(&[0; 8]);

const fn fnv1(bytes: &[u8]) -> Hash {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = hash.wrapping_mul(0x0100_0000_01b3) ^ bytes[i] as u64;
        i += 1;
    }
    hash
}

fn text(text: &str) -> Hash {
    fnv1(text.as_bytes())
}

fn int(number: i64) -> Hash {
    fnv1(&number.to_le_bytes())
}

fn bool(value: bool) -> Hash {
    fnv1(&[u8::from(value)])
}

fn chain(first: Hash, second: Hash) -> Hash {
    fnv1([first.to_le_bytes(), second.to_le_bytes()].as_flattened())
}

fn list(items: impl Iterator<Item = Hash>) -> Hash {
    items.fold(0, chain)
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, Hash)>) -> Hash {
    pairs.fold(0, |all, (key, value)| all ^ chain(text(key), value))
}

fn structure(name: &str, fields: &[(&str, Hash)]) -> Hash {
    text(name) ^ pairs(fields.iter().copied())
}
