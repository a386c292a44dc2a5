//! What the library reads, as functions of the bytes: nothing may panic or hang.
//!
//! Not part of the API. The targets in the folder `fuzz` of the repository call these without end;
//! the tests below call them with mutated seeds.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use waypost_core::provider::EnvProvider;
use waypost_core::{Environment, Host, ServiceAddress, ServiceName, Weight};

use crate::active_check::ActiveCheck;
use crate::balance::strategy_named;
use crate::settings::{ProviderKind, Settings};

/// Names, addresses, weights and whatever else is one word.
pub fn words(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    reads_back::<ServiceName>(&text);
    reads_back::<Host>(&text);
    reads_back::<Weight>(&text);
    let _ = text.parse::<ServiceAddress>();
    // One over HTTP makes a client at once, with all certificates that this machine trusts.
    if !text.starts_with("http") {
        let _ = text.parse::<ActiveCheck>();
    }
    let _ = text.parse::<ProviderKind>();
    let _ = strategy_named(&text);
}

/// The file of services, as JSON and as YAML.
pub fn files(input: &[u8]) {
    for name in ["services.json", "services.yaml"] {
        waypost_core::fuzz::file(Path::new(name), input);
    }
}

/// Variables, one `NAME=VALUE` a line.
pub fn environment(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let environment: Environment = pairs.collect();
    let _ = EnvProvider::new(&environment);
    let _ = Settings::new(environment.clone());
    #[cfg(feature = "consul")]
    let _ = waypost_consul::ConsulBuilder::from_environment(&environment);
}

/// An answer of Consul's about the health of a service.
#[cfg(feature = "consul")]
pub fn answers(input: &[u8]) {
    waypost_consul::fuzz::read_answer(input);
}

/// What is shown of a value can be read again.
fn reads_back<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let shown = value.to_string();
        let again = shown.parse().ok();
        assert!(again == Some(value), "{text:?} became {shown:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: usize = 5_000;

    const PIECES: &[&str] = &[
        "http://",
        ":",
        "[::1]",
        "65536",
        "-1",
        "1e999",
        "null",
        "{}",
        "[",
        "]",
        "\"",
        "'",
        "\n",
        "\n  ",
        "- ",
        "&a ",
        "*a",
        "é",
        "\u{0}",
        "%",
        "@",
        "//",
        "?",
        "#",
        "_",
        ".",
        ",",
        "true",
        "18446744073709551616",
        "127.0.0.1",
        "0x10",
        "\\ud800",
    ];

    #[test]
    fn words_do_no_harm() {
        run(
            words,
            &[
                "auth",
                "http://auth.example:5001/base",
                "https://[fd00::1]:8443",
                "10.0.0.1:80",
                "100",
                "unix:///run/x.sock",
                "consul",
                "round_robin",
            ],
        );
    }

    #[test]
    fn files_do_no_harm() {
        run(
            files,
            &[
                r#"{"auth":{"url":"http://auth:5001"},"db":[{"address":"10.0.0.1","port":5432}]}"#,
                r#"{"a":{"instances":[{"address":"x","port":1,"weight":3,"tags":["t"],"ports":{"m":2}}]}}"#,
                "auth:\n  url: http://auth:5001\ndb:\n- address: 10.0.0.1\n  port: 5432\n  zone: a\n",
                "a: &x {address: h, port: 80}\nb: *x\nc: http://c:1 # why\n",
            ],
        );
    }

    #[test]
    fn variables_do_no_harm() {
        run(
            environment,
            &[
                "AUTH_SERVICE_URL=http://auth:5001\nSERVICE_DB_HOST=db\nSERVICE_DB_PORT=5432",
                "CONSUL_HOST=consul\nCONSUL_PORT=8500\nCONSUL_HTTP_SSL_VERIFY=false",
                "CONSUL_HTTP_ADDR=https://a:1,unix:///b\nSERVICE_DISCOVERY_PROVIDER=consul",
                "SERVICE_DISCOVERY_STRATEGY=random\nSERVICE_DISCOVERY_ACTIVE_CHECK=tcp",
            ],
        );
    }

    #[cfg(feature = "consul")]
    #[test]
    fn answers_do_no_harm() {
        run(
            answers,
            &[
                r#"[{"Node":{"Node":"n1","Address":"10.0.0.1","TaggedAddresses":null},"Service":{
                "ID":"w1","Address":"","Port":80,"Tags":null,"Meta":{"weight":"3","port_m":"9"},
                "Weights":{"Passing":1,"Warning":1},"TaggedAddresses":{"lan":{"Address":"::1",
                "Port":1}}},"Checks":[{"Status":"passing"},{"Status":"warning"}]}]"#,
            ],
        );
    }

    #[test]
    fn depth_does_no_harm() {
        for piece in ["[", "{\"a\":", "a: [", "- ", "{a: ", "&a [*a, ", "!!map "] {
            files(piece.repeat(200_000 / piece.len()).as_bytes());
        }
    }

    fn run(target: fn(&[u8]), seeds: &[&str]) {
        let mut random = fastrand::Rng::with_seed(7);
        for seed in seeds {
            target(seed.as_bytes());
        }
        for _ in 0..INPUTS {
            let mut input = seeds[random.usize(..seeds.len())].as_bytes().to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..=input.len());
                let end = random.usize(at..=input.len().min(at + 12));
                match random.u8(..4) {
                    0 if at < input.len() => input[at] = random.u8(..),
                    1 => drop(input.drain(at..end)),
                    2 => {
                        let copy = input[at..end].to_vec();
                        input.splice(at..at, copy);
                    }
                    _ => {
                        let piece = PIECES[random.usize(..PIECES.len())];
                        input.splice(at..end, piece.bytes());
                    }
                }
            }
            let shown = String::from_utf8_lossy(&input).into_owned();
            let done = std::panic::catch_unwind(|| target(&input));
            assert!(done.is_ok(), "panicked at {shown:?}");
        }
    }
}
