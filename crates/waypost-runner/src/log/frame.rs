//! Bytes into lines.

/// Lines longer than this are cut.
pub(crate) const LONGEST_LINE: usize = 64 * 1024;

/// Cuts a stream at its line ends. Whatever the stream holds, no more than [`LONGEST_LINE`] bytes
/// are kept, and a line that goes on for ever is handed out (once) as soon as it is too long.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    partial: Vec<u8>,
    /// The rest of a line whose beginning was handed out.
    skipping: bool,
}

impl Framer {
    /// Takes bytes and gives each whole line to `line`, with whether it was cut.
    pub(crate) fn push(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, tail) = (&bytes[..end], &bytes[end + 1..]);
            self.extend(head, line);
            if !self.skipping {
                line(without_return(&self.partial), false);
            }
            self.partial.clear();
            self.skipping = false;
            bytes = tail;
        }
        self.extend(bytes, line);
    }

    /// The stream has ended: what is left is a line, too.
    pub(crate) fn end(&mut self, line: &mut impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            line(without_return(&self.partial), false);
            self.partial.clear();
        }
    }

    fn extend(&mut self, bytes: &[u8], line: &mut impl FnMut(&[u8], bool)) {
        if self.skipping {
            return;
        }
        let room = LONGEST_LINE - self.partial.len();
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            line(&self.partial, true);
            self.partial.clear();
            self.skipping = true;
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `input` when it comes in pieces of `piece` bytes.
    fn frame(input: &[u8], piece: usize) -> Vec<(Vec<u8>, bool)> {
        let mut framer = Framer::default();
        let mut lines = Vec::new();
        let mut line = |bytes: &[u8], cut| lines.push((bytes.to_vec(), cut));
        for bytes in input.chunks(piece) {
            framer.push(bytes, &mut line);
        }
        framer.end(&mut line);
        lines
    }

    #[test]
    fn pieces_make_no_difference() {
        let input = b"one\r\n\ntwo\xff\0\nlast";
        let expected: Vec<(Vec<u8>, bool)> = [b"one" as &[u8], b"", b"two\xff\0", b"last"]
            .map(|line| (line.to_vec(), false))
            .into();
        for piece in 1..=input.len() {
            assert_eq!(frame(input, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_long_line_is_cut_once_and_the_next_is_whole() {
        let mut input = vec![b'x'; 1024 * 1024];
        input.extend(b"\nnext\n");
        for piece in [1000, LONGEST_LINE, LONGEST_LINE + 1, input.len()] {
            let lines = frame(&input, piece);
            assert_eq!(lines.len(), 2, "pieces of {piece}");
            assert_eq!((lines[0].0.len(), lines[0].1), (LONGEST_LINE, true));
            assert_eq!(lines[1], (b"next".to_vec(), false));
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let mut input = vec![b'x'; LONGEST_LINE];
        input.push(b'\n');
        assert_eq!(frame(&input, 4096), [(vec![b'x'; LONGEST_LINE], false)]);
    }

    #[test]
    fn an_endless_line_is_shown_before_it_ends() {
        let mut framer = Framer::default();
        let mut shown = 0;
        for _ in 0..1000 {
            framer.push(&[b'x'; 1024], &mut |_, cut| shown += usize::from(cut));
        }
        assert_eq!(shown, 1);
        assert!(framer.partial.capacity() <= 2 * LONGEST_LINE);
    }
}
