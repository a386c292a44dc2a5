//! Builds frames and header blocks.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

/// The stream of the good request that follows each case.
pub(super) const LAST: u32 = 0x7fff_0001;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An HPACK integer with a prefix of some bits (RFC 7541, section 5.1).
pub(super) fn integer(first: u8, bits: u32, mut value: usize) -> Vec<u8> {
    let limit = (1 << bits) - 1;
    if value < limit {
        return vec![first | value as u8];
    }
    let mut out = vec![first | limit as u8];
    value -= limit;
    while value >= 128 {
        out.push((value % 128) as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
    out
}

/// A field that is sent literally and is not indexed.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        out.extend(integer(0, 7, text.len()));
        out.extend(text.as_bytes());
    }
    out
}

pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

pub(super) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "gw.test"),
    (":path", "/echo/"),
];

/// A complete request without a body, with some more fields.
pub(super) fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let block = fields(&[&GET, more].concat());
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

/// A complete request with exactly these fields.
pub(super) fn exactly(all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(all))
}

/// The head of a POST whose body follows.
pub(super) fn post(more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = GET;
    all[0].1 = "POST";
    let block = fields(&[&all, more].concat());
    frame(HEADERS, END_HEADERS, 1, &block)
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

pub(super) fn increment(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A request whose block is a good GET and then these bytes.
pub(super) fn block(bytes: &[u8]) -> Vec<u8> {
    let block = [&fields(&GET), bytes].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}
