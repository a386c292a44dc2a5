//! The library doesn't change features of an application's other dependencies.

use std::process::Command;

/// Cargo unifies features: with a TLS backend chosen by this library, `reqwest::Client::new()` would
/// panic in an application that uses reqwest without TLS, and uses it with another crypto provider.
#[test]
fn no_feature_chooses_the_tls_backend_of_the_applications_reqwest() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "waypost"])
        .args(["--all-features", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p} features: {f}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let reqwest: Vec<_> = tree
        .lines()
        .filter(|line| line.starts_with("reqwest "))
        .collect();
    assert!(!reqwest.is_empty(), "{error}");
    for line in reqwest {
        for backend in ["rustls", "native-tls", "default"] {
            assert!(!line.contains(backend), "{line}");
        }
    }
}
