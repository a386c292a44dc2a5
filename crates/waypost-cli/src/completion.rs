//! Completions that need the registry: the names of services.

use std::ffi::OsString;
use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use tokio::time::timeout;

use crate::command::registry_args::RegistryArgs;

/// The variable that makes this program print completions instead of running a command. It is set by
/// the scripts that `waypost completions` prints.
pub(crate) const VARIABLE: &str = "WAYPOST_COMPLETE";

/// How long a completion waits for the registry: about as long as a person who pressed Tab would.
const TIMEOUT: Duration = Duration::from_millis(700);

/// Completes an argument with the names of the registered services.
pub(crate) fn services() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = service_names().unwrap_or_default();
        names.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// The names of all services; `None` if the registry does not respond in time.
fn service_names() -> Option<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let args = RegistryArgs::for_completion(registry_on_the_line(std::env::args_os()), TIMEOUT);
    runtime.block_on(async {
        let directory = args.directory().ok()?;
        let catalog = timeout(TIMEOUT, directory.catalog()).await.ok()?.ok()?;
        let names = catalog.names().iter().map(ToString::to_string);
        Some(names.collect())
    })
}

/// The value of `--registry` in the command line that is being completed.
fn registry_on_the_line(words: impl IntoIterator<Item = OsString>) -> Option<String> {
    let mut words = words.into_iter().filter_map(|word| word.into_string().ok());
    while let Some(word) = words.next() {
        if word == "--registry" {
            return words.next();
        }
        if let Some(value) = word.strip_prefix("--registry=") {
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_on_the_command_line_is_used() {
        for (line, expected) in [
            ("waypost -- waypost instances we", None),
            (
                "waypost -- waypost instances --registry h:1 we",
                Some("h:1"),
            ),
            ("waypost -- waypost explain --registry=h:2", Some("h:2")),
            ("waypost -- waypost explain --registry", None),
        ] {
            let found = registry_on_the_line(line.split(' ').map(OsString::from));
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
