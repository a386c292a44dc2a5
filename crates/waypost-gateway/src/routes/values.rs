//! Values in a routes file.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use super::pattern::HostPattern;

/// A value that is parsed from text and validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked<T>(pub(crate) T);

/// A type that validates its text.
pub(crate) trait Check: Sized {
    /// # Errors
    /// What is wrong.
    fn check(text: &str) -> Result<Self, String>;
}

impl Check for HostPattern {
    fn check(text: &str) -> Result<Self, String> {
        // `bare_host` removes the final dot from a request's host, too.
        Self::parse(text.strip_suffix('.').unwrap_or(text))
    }
}

impl Check for Method {
    fn check(text: &str) -> Result<Self, String> {
        if ["CONNECT", "TRACE"].contains(&text) {
            return Err("requests with CONNECT or TRACE are never forwarded".to_owned());
        }
        match Self::from_bytes(text.as_bytes()) {
            Ok(method) if !text.bytes().any(|byte| byte.is_ascii_lowercase()) => Ok(method),
            _ => Err(format!(
                "{text:?} is not an HTTP method; methods are in capitals, such as GET"
            )),
        }
    }
}

impl Check for HeaderName {
    fn check(text: &str) -> Result<Self, String> {
        let name = Self::try_from(text).map_err(|_| format!("{text:?} is not a header name"))?;
        let is_framing = [
            http::header::CONNECTION,
            http::header::CONTENT_LENGTH,
            http::header::TRANSFER_ENCODING,
            http::header::UPGRADE,
        ]
        .contains(&name);
        if is_framing {
            return Err(format!(
                "the header {text} belongs to one connection and can't be used"
            ));
        }
        Ok(name)
    }
}

impl Check for HeaderValue {
    fn check(text: &str) -> Result<Self, String> {
        Self::from_str(text).map_err(|_| format!("{text:?} can't be the value of a header"))
    }
}

impl<'de, T: Check> Deserialize<'de> for Checked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::check(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A time such as `500ms` or `1m 30s`.
pub(super) fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(|_| {
        D::Error::custom(format_args!(
            "{text:?} is not a time; expected a number and a unit, such as 500ms, 10s or 5m"
        ))
    })
}

/// A number of bytes, such as `1000`, `64KiB` or `10MB`.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct SizeVisitor;

    impl Visitor<'_> for SizeVisitor {
        type Value = u64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number of bytes, such as 1000, 64KiB or 10MB")
        }

        fn visit_u64<E>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::custom("a number of bytes can't be negative"))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            parse_size(text).ok_or_else(|| {
                E::custom(format_args!(
                    "{text:?} is not a number of bytes; expected one such as 1000, 64KiB or 10MB"
                ))
            })
        }
    }

    deserializer.deserialize_any(SizeVisitor).map(Some)
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text.strip_prefix(digits)?.trim();
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A text, or a list of texts.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    struct ListVisitor;

    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut items: A,
        ) -> Result<Vec<String>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(ListVisitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_or_binary_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("2B", Some(2)),
            ("2kB", Some(2_000)),
            ("2 KB", Some(2_000)),
            ("2MB", Some(2_000_000)),
            ("2GB", Some(2_000_000_000)),
            ("2KiB", Some(2 * 1024)),
            ("2MiB", Some(2 * 1024 * 1024)),
            ("2GiB", Some(2 * 1024 * 1024 * 1024)),
            ("99999999999GiB", None),
            ("2kiB", None),
            ("1.5MB", None),
            ("-1", None),
            ("MB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), size, "{text:?}");
        }
    }
}
