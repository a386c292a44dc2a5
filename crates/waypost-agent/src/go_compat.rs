//! Formats of Go's standard library that are part of Consul's HTTP API, because Consul parses and
//! prints with that library: durations (`1m30s`), booleans and numbers in queries, and the names of
//! processors. Clients send and read them, so they must be the same here.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Parses a duration such as `1m30s` or `1.5h` to nanoseconds. The error text is Go's.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let nanoseconds = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * nanoseconds;
        rest = tail;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    let total = total.round() as i64;
    Ok(if text.starts_with('-') { -total } else { total })
}

/// A duration of this many nanoseconds; 0 if the number is negative.
pub(crate) fn duration(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Nanoseconds as a duration such as `1m30s`.
pub(crate) fn show_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let number = |unit: u64, name: &str| {
        let text = format!(
            "{}.{:09}",
            total / unit,
            total % unit * (1_000_000_000 / unit)
        );
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{sign}{text}{name}")
    };
    match total {
        1..1_000 => number(1, "ns"),
        1_000..1_000_000 => number(1_000, "µs"),
        1_000_000..1_000_000_000 => number(1_000_000, "ms"),
        _ => {
            let seconds = total / 1_000_000_000;
            let fraction = format!("{:09}", total % 1_000_000_000);
            let fraction = match fraction.trim_end_matches('0') {
                "" => String::new(),
                digits => format!(".{digits}"),
            };
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}{fraction}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}{fraction}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}{fraction}s"),
            }
        }
    }
}

/// [`show_duration`], but empty for 0.
pub(crate) fn show_nonzero_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        String::new()
    } else {
        show_duration(nanoseconds)
    }
}

/// Deserializes a duration: a string such as `10s`, or a number of nanoseconds. Anything else is 0.
pub(crate) fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    optional_nanoseconds(deserializer).map(Option::unwrap_or_default)
}

/// [`nanoseconds`], or `None` for `null`.
pub(crate) fn optional_nanoseconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    let nanoseconds = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::String(text) => parse_duration(&text).map_err(Error::custom)?,
        Value::Number(number) => {
            let float = || number.as_f64().unwrap_or_default() as i64;
            number.as_i64().unwrap_or_else(float)
        }
        _ => 0,
    };
    Ok(Some(nanoseconds))
}

/// Deserializes a duration to its text, which is empty for 0.
pub(crate) fn duration_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    nanoseconds(deserializer).map(show_nonzero_duration)
}

/// Parses a boolean as `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Parses an unsigned number as `strconv.ParseUint` does. The error text is Go's.
pub(crate) fn parse_u64(text: &str) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fault = if is_number {
        "value out of range"
    } else {
        "invalid syntax"
    };
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {fault}"))
}

/// Go's name for the processor architecture.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_as_in_go() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("10s", Ok(10_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            ("-2ms", Ok(-2_000_000)),
            ("3µs", Ok(3_000)),
            ("10", Err("time: missing unit in duration \"10\"")),
            ("x", Err("time: invalid duration \"x\"")),
            ("", Err("time: invalid duration \"\"")),
            ("1d", Err("time: unknown unit \"d\" in duration \"1d\"")),
        ] {
            assert_eq!(
                parse_duration(text),
                expected.map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn durations_are_formatted_as_in_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (999, "999ns"),
            (1_000, "1µs"),
            (999_999, "999.999µs"),
            (1_000_000, "1ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
            (1_500, "1.5µs"),
            (200_000_000, "200ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (-7_200_000_000_000, "-2h0m0s"),
        ] {
            assert_eq!(show_duration(nanoseconds), text);
        }
    }
}
