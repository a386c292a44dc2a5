//! Finds the port of a program in its source code.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::candidate::Port;

/// The maximum size of a file that is read. Longer files are probably generated.
const MAX_BYTES: u64 = 1 << 20;

/// The text of a file. `None` if it doesn't exist or isn't text.
pub(super) fn read(path: &Path) -> Option<String> {
    let is_short = fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= MAX_BYTES);
    is_short.then(|| fs::read_to_string(path).ok()).flatten()
}

/// The port that a program listens on, according to its source code: any port if it reads the variable
/// PORT, or else the first port that it seems to listen on, or else none.
pub(super) fn port(text: &str) -> Port {
    static VARIABLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"['".]PORT\b"#).ok());
    static LITERAL: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r#"(?i)(?:listen\w*\(|bind\w*\(|run\(|serve\(|port\b)[^\n]{0,60}?\b([1-9]\d{3,4})\b"#,
        )
        .ok()
    });
    if VARIABLE.as_ref().is_some_and(|it| it.is_match(text)) {
        return Port::Any;
    }
    let found = LITERAL.as_ref().and_then(|it| it.captures(text));
    let port = found.and_then(|found| found.get(1)?.as_str().parse().ok());
    port.map_or(Port::None, Port::Fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_program_is_the_one_that_it_listens_on() {
        for (text, expected) in [
            ("app.listen(process.env.PORT || 3000)", Port::Any),
            ("os.Getenv(\"PORT\")", Port::Any),
            ("http.ListenAndServe(\":8080\", nil)", Port::Fixed(8080)),
            ("TcpListener::bind(\"0.0.0.0:7000\")", Port::Fixed(7000)),
            ("app.run(host='0.0.0.0', port=5000)", Port::Fixed(5000)),
            ("const year = 2024;", Port::None),
            ("server.listen(99999)", Port::None),
        ] {
            assert_eq!(port(text), expected, "{text}");
        }
    }
}
