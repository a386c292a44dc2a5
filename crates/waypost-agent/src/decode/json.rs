//! JSON as Go's decoder reads it: the order of the fields is kept, and so are those that came
//! twice and the digits of numbers; what is wrong is said in Go's words, which clients show.

use std::borrow::Cow;

/// A JSON value. What has no escapes is borrowed from the body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Deeper nesting than this is refused. Go's own limit is 10,000.
const DEEPEST: usize = 500;

impl<'a> Json<'a> {
    /// Reads the first value of a body; what follows is ignored.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, String> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err("EOF".to_owned());
        }
        Reader { rest: body }.value(0)
    }

    /// What Go calls this kind of value.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// What is left to be read.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Json<'a>, String> {
        if depth > DEEPEST {
            return Err("exceeded max depth".to_owned());
        }
        match self.peek_after_space()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Json::String),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true", Json::Bool(true)),
            b'f' => self.literal("false", Json::Bool(false)),
            b'n' => self.literal("null", Json::Null),
            _ => self.fail("looking for beginning of value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, String> {
        self.skip();
        let mut fields = Vec::new();
        if self.peek_after_space()? == b'}' {
            self.skip();
            return Ok(Json::Object(fields));
        }
        loop {
            if self.peek_after_space()? != b'"' {
                return self.fail("looking for beginning of object key string");
            }
            let name = self.string()?;
            if self.peek_after_space()? != b':' {
                return self.fail("after object key");
            }
            self.skip();
            fields.push((name, self.value(depth + 1)?));
            match self.peek_after_space()? {
                b',' => self.skip(),
                b'}' => {
                    self.skip();
                    return Ok(Json::Object(fields));
                }
                _ => return self.fail("after object key:value pair"),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, String> {
        self.skip();
        let mut items = Vec::new();
        if self.peek_after_space()? == b']' {
            self.skip();
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            match self.peek_after_space()? {
                b',' => self.skip(),
                b']' => {
                    self.skip();
                    return Ok(Json::Array(items));
                }
                _ => return self.fail("after array element"),
            }
        }
    }

    /// Reads a string; bytes that are no UTF-8 and halves of surrogate pairs become `U+FFFD`.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.skip();
        let mut text = Cow::Borrowed("");
        loop {
            let plain = self
                .rest
                .iter()
                .position(|&b| b == b'"' || b == b'\\' || b < 0x20);
            let (plain, rest) = self.rest.split_at(plain.unwrap_or(self.rest.len()));
            self.rest = rest;
            text += String::from_utf8_lossy(plain);
            match self.peek()? {
                b'"' => {
                    self.skip();
                    return Ok(text);
                }
                b'\\' => {
                    self.skip();
                    let character = self.escape()?;
                    text.to_mut().push(character);
                }
                _ => return self.fail("in string literal"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let character = match self.peek()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            plain @ (b'"' | b'\\' | b'/') => char::from(plain),
            b'u' => {
                self.skip();
                return self.unicode();
            }
            _ => return self.fail("in string escape code"),
        };
        self.skip();
        Ok(character)
    }

    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hexadecimal()?;
        if (0xd800..0xdc00).contains(&first) && self.rest.starts_with(b"\\u") {
            let before = self.rest;
            self.rest = &self.rest[2..];
            let second = self.hexadecimal()?;
            if let Some(Ok(character)) = char::decode_utf16([first, second]).next() {
                return Ok(character);
            }
            self.rest = before;
        }
        Ok(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hexadecimal(&mut self) -> Result<u16, String> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.peek()?).to_digit(16) else {
                return self.fail("in \\u hexadecimal character escape");
            };
            value = value * 16 + digit;
            self.skip();
        }
        Ok(u16::try_from(value).unwrap_or_default())
    }

    fn number(&mut self) -> Result<Json<'a>, String> {
        let start = self.rest;
        if self.peek()? == b'-' {
            self.skip();
        }
        if self.peek()? == b'0' {
            self.skip();
        } else {
            self.digits("in numeric literal")?;
        }
        if self.rest.first() == Some(&b'.') {
            self.skip();
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.skip();
            if matches!(self.peek()?, b'+' | b'-') {
                self.skip();
            }
            self.digits("in exponent of numeric literal")?;
        }
        let literal = &start[..start.len() - self.rest.len()];
        Ok(Json::Number(String::from_utf8_lossy(literal)))
    }

    /// Skips one digit or more.
    fn digits(&mut self, place: &str) -> Result<(), String> {
        if !self.peek()?.is_ascii_digit() {
            return self.fail(place);
        }
        let digits = self.rest.iter().position(|byte| !byte.is_ascii_digit());
        self.rest = &self.rest[digits.unwrap_or(self.rest.len())..];
        Ok(())
    }

    fn literal(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, String> {
        for expected in word.chars() {
            if char::from(self.peek()?) != expected {
                return self.fail(&format!("in literal {word} (expecting {expected:?})"));
            }
            self.skip();
        }
        Ok(value)
    }

    fn peek_after_space(&mut self) -> Result<u8, String> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.rest.first() {
            self.skip();
        }
        self.peek()
    }

    fn peek(&self) -> Result<u8, String> {
        let first = self.rest.first().copied();
        first.ok_or_else(|| "unexpected EOF".to_owned())
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// Says what is wrong with the next character.
    fn fail<T>(&self, place: &str) -> Result<T, String> {
        let shown = match self.peek()? {
            b'\'' => r"'\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            byte => format!("{:?}", char::from(byte)),
        };
        Err(format!("invalid character {shown} {place}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_with_their_escapes() {
        let json = Json::parse(br#""a\n\"\/\u00e9\ud83d\ude00\ud83dx""#);
        assert_eq!(json, Ok(Json::String("a\n\"/é😀\u{fffd}x".into())));
        assert_eq!(
            Json::parse(b"\"\xff\""),
            Ok(Json::String("\u{fffd}".into()))
        );
    }

    #[test]
    fn a_body_that_ends_early_or_goes_on_forever_is_refused() {
        for body in [
            "{", "[1,", "\"a", "\"\\", "\"\\u1", "-", "1.", "tr", "{\"a\":",
        ] {
            assert_eq!(
                Json::parse(body.as_bytes()),
                Err("unexpected EOF".to_owned()),
                "{body}"
            );
        }
        let deep = "[".repeat(100_000);
        assert_eq!(
            Json::parse(deep.as_bytes()),
            Err("exceeded max depth".to_owned())
        );
    }
}
