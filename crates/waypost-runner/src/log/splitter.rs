//! Splits a byte stream into lines.

/// Longer lines are truncated to this many bytes.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;

/// Splits a stream at line ends. It never buffers more than [`MAX_LINE_BYTES`]: the beginning of a
/// longer line is emitted, marked as truncated, as soon as it exceeds the limit, and the rest of that
/// line is dropped.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
    /// Whether the beginning of the current line was emitted, so that the rest is dropped.
    skipping: bool,
}

impl LineSplitter {
    /// Takes the next bytes and emits each complete line, with whether it was truncated.
    pub(crate) fn push(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, tail) = (&bytes[..end], &bytes[end + 1..]);
            self.extend(head, emit);
            if !self.skipping {
                emit(without_carriage_return(&self.partial), false);
            }
            self.partial.clear();
            self.skipping = false;
            bytes = tail;
        }
        self.extend(bytes, emit);
    }

    /// Emits the last line if the stream did not end with a line end.
    pub(crate) fn finish(&mut self, emit: &mut impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            emit(without_carriage_return(&self.partial), false);
            self.partial.clear();
        }
    }

    fn extend(&mut self, bytes: &[u8], emit: &mut impl FnMut(&[u8], bool)) {
        if self.skipping {
            return;
        }
        let free = MAX_LINE_BYTES - self.partial.len();
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(free)]);
        if bytes.len() > free {
            emit(&self.partial, true);
            self.partial.clear();
            self.skipping = true;
        }
    }
}

fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `input`, which arrives in pieces of `piece` bytes.
    fn split(input: &[u8], piece: usize) -> Vec<(Vec<u8>, bool)> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        let mut emit = |bytes: &[u8], truncated| lines.push((bytes.to_vec(), truncated));
        for bytes in input.chunks(piece) {
            splitter.push(bytes, &mut emit);
        }
        splitter.finish(&mut emit);
        lines
    }

    #[test]
    fn the_size_of_the_reads_makes_no_difference() {
        let input = b"one\r\n\ntwo\xff\0\nlast";
        let expected: Vec<(Vec<u8>, bool)> = [b"one" as &[u8], b"", b"two\xff\0", b"last"]
            .map(|line| (line.to_vec(), false))
            .into();
        for piece in 1..=input.len() {
            assert_eq!(split(input, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_long_line_is_truncated_once_and_the_next_line_is_complete() {
        let mut input = vec![b'x'; 1024 * 1024];
        input.extend(b"\nnext\n");
        for piece in [1000, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, input.len()] {
            let lines = split(&input, piece);
            assert_eq!(lines.len(), 2, "pieces of {piece}");
            assert_eq!((lines[0].0.len(), lines[0].1), (MAX_LINE_BYTES, true));
            assert_eq!(lines[1], (b"next".to_vec(), false));
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_complete() {
        let mut input = vec![b'x'; MAX_LINE_BYTES];
        input.push(b'\n');
        assert_eq!(split(&input, 4096), [(vec![b'x'; MAX_LINE_BYTES], false)]);
    }

    #[test]
    fn an_endless_line_is_emitted_before_it_ends() {
        let mut splitter = LineSplitter::default();
        let mut emitted = 0;
        for _ in 0..1000 {
            splitter.push(&[b'x'; 1024], &mut |_, truncated| {
                emitted += usize::from(truncated)
            });
        }
        assert_eq!(emitted, 1);
        assert!(splitter.partial.capacity() <= 2 * MAX_LINE_BYTES);
    }
}
