//! The library doesn't change features of an application's other dependencies.

use std::process::Command;

/// The features of a dependency in each place where it is used, if the library is built with `arguments`.
fn features_of(dependency: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "waypost"])
        .args(["--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p} features: {f}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    let start = format!("{dependency} v");
    let lines = tree.lines().filter(|line| line.starts_with(&start));
    let features: Vec<_> = lines
        .filter_map(|line| line.split_once("features: "))
        .map(|(_, features)| features.to_owned())
        .collect();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!features.is_empty(), "{error}");
    features
}

/// Cargo unifies features: with a TLS backend chosen by this library, `reqwest::Client::new()` would
/// panic in an application that uses reqwest without TLS, and uses it with another crypto provider.
#[test]
fn no_feature_chooses_the_tls_backend_of_the_applications_reqwest() {
    for features in features_of("reqwest", &["--all-features"]) {
        for backend in ["rustls", "native-tls", "default"] {
            assert!(!features.contains(backend), "{features}");
        }
    }
}

/// An application that only looks services up needs no signals, child processes or threads of Tokio.
#[test]
fn without_its_features_the_library_needs_little_of_tokio() {
    for features in features_of("tokio", &["--no-default-features"]) {
        for unused in ["full", "process", "rt-multi-thread", "signal"] {
            let mut features = features.split([',', ' ']);
            assert!(!features.any(|feature| feature == unused), "{unused}");
        }
    }
}
