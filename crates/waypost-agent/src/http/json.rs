//! JSON in the format of Go's encoder: `<`, `>`, `&`, U+2028 and U+2029 are escaped, control
//! characters have no short forms except `\n`, `\r` and `\t`, and floats switch to exponents at
//! other sizes than in `serde_json`.

use std::io;
use std::io::Write;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Serializes a value. With `pretty` it is indented by four spaces and ends with a newline.
pub(crate) fn to_vec<T: Serialize + ?Sized>(
    value: &T,
    pretty: bool,
) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(512);
    if pretty {
        let indented = GoFormatter(PrettyFormatter::with_indent(b"    "));
        value.serialize(&mut Serializer::with_formatter(&mut text, indented))?;
        text.push(b'\n');
    } else {
        value.serialize(&mut Serializer::with_formatter(
            &mut text,
            GoFormatter(CompactFormatter),
        ))?;
    }
    Ok(text)
}

/// Formats strings and numbers as Go does, and leaves the structure to another formatter.
struct GoFormatter<F>(F);

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        to: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            to.write_all(&rest.as_bytes()[..at])?;
            let mut tail = rest[at..].chars();
            if let Some(character) = tail.next() {
                write!(to, "\\u{:04x}", u32::from(character))?;
            }
            rest = tail.as_str();
        }
        to.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        to: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Backspace => to.write_all(b"\\u0008"),
            CharEscape::FormFeed => to.write_all(b"\\u000c"),
            other => self.0.write_char_escape(to, other),
        }
    }

    fn write_f64<W: ?Sized + Write>(&mut self, to: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            // Go writes the sign of a positive exponent: 1e+21, 1e-7.
            let text = format!("{value:e}");
            match text.split_once('e') {
                Some((digits, power)) if !power.starts_with('-') => write!(to, "{digits}e+{power}"),
                _ => to.write_all(text.as_bytes()),
            }
        } else {
            write!(to, "{value}")
        }
    }

    fn begin_array<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_array(to)
    }

    fn end_array<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_array(to)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(to, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_array_value(to)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object(to)
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object(to)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(to, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object_value(to)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object_value(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_have_the_format_of_go() {
        let text = to_vec(
            &("<a&b>\u{8}\n\u{2028}é", 1e-7, 1e21, 0.00001, 1.5, 0.0),
            false,
        );
        assert_eq!(
            String::from_utf8(text.unwrap()).unwrap(),
            r#"["\u003ca\u0026b\u003e\u0008\n\u2028é",1e-7,1e+21,0.00001,1.5,0]"#
        );
    }

    #[test]
    fn pretty_output_is_indented_by_four_spaces() {
        let text = to_vec(&[Vec::new(), vec![1]], true).unwrap();
        assert_eq!(text, b"[\n    [],\n    [\n        1\n    ]\n]\n");
    }
}
