//! Reads server-sent events with limits.
//!
//! Not a crate, because those drop unknown fields, in which llama.cpp reports failures (`error: {…}`),
//! and buffer lines without a limit.

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};

use super::body::root_cause;

/// The longest line and the longest event, in bytes. A token takes a few hundred.
const MAX_EVENT: usize = 256 * 1024;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServerEvent {
    /// The field `event`; empty if there is none.
    pub(super) name: String,
    /// The lines of the field `data`.
    pub(super) data: String,
    /// The lines of the field `error`, which is not in the standard.
    pub(super) error: String,
}

/// Why no further event can be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The connection failed, for this reason.
    Interrupted(String),
    /// A line or an event is longer than this many bytes.
    EventTooLong(usize),
    /// The whole response is longer than this many bytes.
    ResponseTooLong(usize),
}

/// Reads the events of one response.
pub(super) struct EventReader {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    unread: Bytes,
    /// The part of a line that has been received.
    line: Vec<u8>,
    event: ServerEvent,
    /// Whether the last line ended with a carriage return, so that a line feed belongs to it.
    after_carriage_return: bool,
    /// How many more bytes are accepted.
    remaining: usize,
    limit: usize,
}

impl EventReader {
    /// Reads a response of at most `limit` bytes.
    pub(super) fn new(response: reqwest::Response, limit: usize) -> Self {
        Self::from_chunks(response.bytes_stream().boxed(), limit)
    }

    fn from_chunks(chunks: BoxStream<'static, reqwest::Result<Bytes>>, limit: usize) -> Self {
        Self {
            chunks,
            unread: Bytes::new(),
            line: Vec::new(),
            event: ServerEvent::default(),
            after_carriage_return: false,
            remaining: limit,
            limit,
        }
    }

    /// The next event; `None` at the end of the response. Can be cancelled without losing an event.
    pub(super) async fn next(&mut self) -> Result<Option<ServerEvent>, ReadError> {
        loop {
            while let Some(line) = self.next_line()? {
                if let Some(event) = self.read_line(&line)? {
                    return Ok(Some(event));
                }
            }
            match self.chunks.next().await {
                Some(Ok(chunk)) => {
                    let Some(remaining) = self.remaining.checked_sub(chunk.len()) else {
                        return Err(ReadError::ResponseTooLong(self.limit));
                    };
                    self.remaining = remaining;
                    self.unread = chunk;
                }
                Some(Err(error)) => return Err(ReadError::Interrupted(root_cause(&error))),
                // Many servers leave out the blank line after the last event, or its line feed.
                None => {
                    let line = std::mem::take(&mut self.line);
                    let event = self.read_line(&line)?;
                    return Ok(event.or_else(|| self.end_event()));
                }
            }
        }
    }

    /// The next complete line, without its end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        if self.after_carriage_return && !self.unread.is_empty() {
            self.after_carriage_return = false;
            if self.unread[0] == b'\n' {
                let _ = self.unread.split_to(1);
            }
        }
        let end = self
            .unread
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        let part = self.unread.split_to(end.unwrap_or(self.unread.len()));
        if self.line.len() + part.len() > MAX_EVENT {
            return Err(ReadError::EventTooLong(MAX_EVENT));
        }
        self.line.extend_from_slice(&part);
        if end.is_none() {
            return Ok(None);
        }
        self.after_carriage_return = self.unread.split_to(1)[0] == b'\r';
        Ok(Some(std::mem::take(&mut self.line)))
    }

    /// Adds a line to the event. Returns the event if the line ends it.
    fn read_line(&mut self, line: &[u8]) -> Result<Option<ServerEvent>, ReadError> {
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let line = String::from_utf8_lossy(line);
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let text = match field {
            "event" => {
                value.clone_into(&mut self.event.name);
                return Ok(None);
            }
            "data" => &mut self.event.data,
            "error" => &mut self.event.error,
            _ => return Ok(None),
        };
        if text.len() + value.len() > MAX_EVENT {
            return Err(ReadError::EventTooLong(MAX_EVENT));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(value);
        Ok(None)
    }

    /// The event so far, unless it is empty.
    fn end_event(&mut self) -> Option<ServerEvent> {
        let event = std::mem::take(&mut self.event);
        (!event.data.is_empty() || !event.error.is_empty()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream;

    use super::*;

    /// The data of all events of a response that arrives in pieces of `size` bytes.
    fn data_of(response: &str, size: usize) -> Vec<String> {
        let chunks: Vec<_> = response
            .as_bytes()
            .chunks(size)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut reader = EventReader::from_chunks(stream::iter(chunks).boxed(), 1_000_000);
        let mut found = Vec::new();
        while let Some(event) = reader.next().now_or_never().unwrap().unwrap() {
            found.push(event.data + &event.error);
        }
        found
    }

    #[test]
    fn events_are_read_with_any_line_ends_and_in_pieces_of_any_size() {
        let response = "\u{feff}data: é\n\n: comment\nid: 1\ndata: b\ndata:c\n\nerror: d\n\n";
        for line_end in ["\n", "\r\n", "\r"] {
            for size in 1..12 {
                let response = response.replace('\n', line_end);
                assert_eq!(
                    data_of(&response, size),
                    ["é", "b\nc", "d"],
                    "{line_end:?}, {size}"
                );
            }
        }
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        for end in ["", "\n", "\n\n"] {
            assert_eq!(data_of(&format!("data: a\n\ndata: b{end}"), 5), ["a", "b"]);
        }
    }

    #[test]
    fn a_line_an_event_and_a_response_have_a_limit() {
        let endless = |chunk: &'static str| {
            let chunks = stream::repeat_with(move || Ok(Bytes::from_static(chunk.as_bytes())));
            EventReader::from_chunks(chunks.boxed(), 4 * 1024 * 1024)
        };
        let read = |mut reader: EventReader| async move {
            loop {
                match reader.next().await {
                    Ok(event) => assert!(event.is_some()),
                    Err(error) => return error,
                }
            }
        };
        let error = |reader| read(reader).now_or_never().unwrap();
        assert!(matches!(error(endless("data")), ReadError::EventTooLong(_)));
        assert!(matches!(
            error(endless("data: abcdefgh\n")),
            ReadError::EventTooLong(_)
        ));
        assert!(matches!(
            error(endless(": ping\n\ndata: {}\n\n")),
            ReadError::ResponseTooLong(_)
        ));
    }
}
