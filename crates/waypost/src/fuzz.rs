//! Parsers of external input, as functions of bytes that must neither panic nor hang.
//!
//! Not part of the API. The fuzz targets in the folder `fuzz` of the repository call these functions; the
//! tests below call them with mutated valid inputs.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use waypost_core::provider::EnvProvider;
use waypost_core::{Environment, Host, ServiceAddress, ServiceName, Weight};

use crate::active_check::ActiveCheck;
use crate::balance::strategy_named;
use crate::settings::{ProviderKind, Settings};

/// Single values: names, hosts, weights, addresses, settings.
pub fn values(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    assert_round_trip::<ServiceName>(&text);
    assert_round_trip::<Host>(&text);
    assert_round_trip::<Weight>(&text);
    let _ = text.parse::<ServiceAddress>();
    // Parsing an HTTP check builds a client and loads the system's root certificates, which is slow.
    if !text.starts_with("http") {
        let _ = text.parse::<ActiveCheck>();
    }
    let _ = text.parse::<ProviderKind>();
    let _ = strategy_named(&text);
}

/// A file of services, as JSON and as YAML.
pub fn service_files(input: &[u8]) {
    for name in ["services.json", "services.yaml"] {
        waypost_core::fuzz::file(Path::new(name), input);
    }
}

/// Environment variables, one `NAME=VALUE` per line.
pub fn environment(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let environment: Environment = pairs.collect();
    EnvProvider::new(&environment);
    let _ = Settings::new(environment.clone());
    #[cfg(feature = "consul")]
    let _ = waypost_consul::ConsulBuilder::from_environment(&environment);
}

/// A response of Consul's `/v1/health/service/:name`.
#[cfg(feature = "consul")]
pub fn consul_answers(input: &[u8]) {
    waypost_consul::fuzz::read_answer(input);
}

/// A parsed value, displayed and parsed again, is the same value.
fn assert_round_trip<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let displayed = value.to_string();
        let again = displayed.parse().ok();
        assert!(again == Some(value), "{text:?} became {displayed:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fragments that the mutator inserts.
    const FRAGMENTS: &[&str] = &[
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
    fn mutated_values_do_not_panic() {
        run(
            values,
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
    fn mutated_service_files_do_not_panic() {
        run(
            service_files,
            &[
                r#"{"auth":{"url":"http://auth:5001"},"db":[{"address":"10.0.0.1","port":5432}]}"#,
                r#"{"a":{"instances":[{"address":"x","port":1,"weight":3,"tags":["t"],"ports":{"m":2}}]}}"#,
                "auth:\n  url: http://auth:5001\ndb:\n- address: 10.0.0.1\n  port: 5432\n  zone: a\n",
                "a: &x {address: h, port: 80}\nb: *x\nc: http://c:1 # why\n",
            ],
        );
    }

    #[test]
    fn mutated_environment_variables_do_not_panic() {
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
    fn mutated_consul_answers_do_not_panic() {
        run(
            consul_answers,
            &[
                r#"[{"Node":{"Node":"n1","Address":"10.0.0.1","TaggedAddresses":null},"Service":{
                "ID":"w1","Address":"","Port":80,"Tags":null,"Meta":{"weight":"3","port_m":"9"},
                "Weights":{"Passing":1,"Warning":1},"TaggedAddresses":{"lan":{"Address":"::1",
                "Port":1}}},"Checks":[{"Status":"passing"},{"Status":"warning"}]}]"#,
            ],
        );
    }

    #[test]
    fn deeply_nested_service_files_do_not_overflow_the_stack() {
        for piece in ["[", "{\"a\":", "a: [", "- ", "{a: ", "&a [*a, ", "!!map "] {
            service_files(piece.repeat(200_000 / piece.len()).as_bytes());
        }
    }

    fn run(target: fn(&[u8]), seeds: &[&str]) {
        waypost_testkit::mutation::fuzz(target, seeds, FRAGMENTS, 5_000);
    }
}
