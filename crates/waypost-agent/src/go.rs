//! The few conventions of Go's standard library that show through Consul's API: durations,
//! booleans and addresses as text.

use std::fmt::Write;
use std::time::Duration;

/// Parses a duration in Go's notation, such as `1m30s` or `1.5h`, into nanoseconds. The error is
/// what Go says.
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

/// A duration from Go's nanoseconds; a negative one is nothing.
pub(crate) fn duration(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Nanoseconds in Go's notation, such as `1m30s`.
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
        0 => "0s".to_owned(),
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

/// Seconds since 1970 as `2026-11-22 02:47:10`, by Howard Hinnant's `civil_from_days`.
pub(crate) fn date_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Parses what Go's `strconv.ParseBool` takes for a boolean.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Cuts text to at most `limit` bytes without cutting a character in two.
pub(crate) fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
    }
}

/// Says what Consul says of text that can't be a UUID.
pub(crate) fn check_uuid(text: &str) -> Result<(), String> {
    if text.len() != 36 {
        return Err("UUID must be 36 characters".to_owned());
    }
    let hyphens = text.matches('-').count();
    if hyphens > 4 {
        return Err(format!(
            "UUID should have maximum of 4 \"-\"; got {hyphens}"
        ));
    }
    if !hyphens.is_multiple_of(2) {
        return Err("Input (without hyphens) must be even length".to_owned());
    }
    match text.chars().find(|c| *c != '-' && !c.is_ascii_hexdigit()) {
        Some(wrong) => Err(format!(
            "Invalid UUID: encoding/hex: invalid byte: U+{:04X} {wrong:?}",
            u32::from(wrong)
        )),
        None => Ok(()),
    }
}

/// Parses an unsigned number as Go's `strconv.ParseUint` does. The error is what Go says.
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

/// A random version 4 UUID.
pub(crate) fn uuid(random: &mut fastrand::Rng) -> String {
    let bits = random.u128(..) & !(0xf << 76) | (0x4 << 76);
    let bits = bits & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (i, digit) in hex.chars().enumerate() {
        if matches!(i, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        let _ = text.write_char(digit);
    }
    text
}

/// What Go calls the processor.
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
    fn durations_are_read_as_go_reads_them() {
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
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (5, "5ns"),
            (1_500, "1.5µs"),
            (200_000_000, "200ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (-7_200_000_000_000, "-2h0m0s"),
        ] {
            assert_eq!(show_duration(nanoseconds), text);
        }
    }

    #[test]
    fn a_time_is_written_as_a_date() {
        assert_eq!(date_time(0), "1970-01-01 00:00:00");
        assert_eq!(date_time(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date_time(1_795_315_630), "2026-11-22 02:47:10");
    }

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        let uuid = uuid(&mut fastrand::Rng::with_seed(7));
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        let mut text = "aéé".to_owned();
        cut(&mut text, 4);
        assert_eq!(text, "aé");
    }
}
