//! The environment variables of a process, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::ConfigError;

/// A snapshot of the environment variables of a process.
///
/// Code that reads variables takes one of these, so that tests can pass their own. Values are trimmed. A
/// variable that is set but empty counts as not set, as in a shell's `${NAME:-default}`.
///
/// ```
/// # use waypost_core::Environment;
/// let environment = Environment::from_iter([("CONSUL_PORT", "8500"), ("CONSUL_HOST", "")]);
/// assert_eq!(environment.port("CONSUL_PORT")?, Some(8500));
/// assert_eq!(environment.get("CONSUL_HOST"), None);
/// # Ok::<(), waypost_core::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The names that have been read, if they are recorded. Clones share the list.
    reads: Option<Arc<Mutex<BTreeSet<String>>>>,
}

impl Environment {
    /// The variables of this process. Those whose name or value is not UTF-8 are left out.
    pub fn of_this_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Sets a variable; an empty value unsets it.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Returns an environment that records which variables are read by name from now on. Clones record
    /// into the same list. Useful to show which settings a program reads.
    ///
    /// ```
    /// # use waypost_core::Environment;
    /// let environment = Environment::from_iter([("CONSUL_HOST", "c")]).recording();
    /// environment.get("CONSUL_HOST");
    /// environment.port("CONSUL_PORT")?;
    /// assert_eq!(environment.reads(), ["CONSUL_HOST", "CONSUL_PORT"]);
    /// # Ok::<(), waypost_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.reads = Some(Arc::default());
        self
    }

    /// The sorted names of the variables that have been read, whether they are set or not. Empty unless
    /// they are [recorded](Self::recording).
    pub fn reads(&self) -> Vec<String> {
        let reads = self.reads.as_ref();
        let reads = reads.map(|it| it.lock().unwrap_or_else(PoisonError::into_inner).clone());
        reads.unwrap_or_default().into_iter().collect()
    }

    /// The value of a variable, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        if let Some(reads) = &self.reads {
            let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.insert(name.to_owned());
        }
        self.value(name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The value of a boolean variable, in any form that Go's `strconv.ParseBool` accepts.
    ///
    /// # Errors
    /// If the variable has another value.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "TRUE" | "True" | "t" | "T" | "1") => Ok(Some(true)),
            Some("false" | "FALSE" | "False" | "f" | "F" | "0") => Ok(Some(false)),
            Some(other) => {
                let problem = format!("{other:?} is not a boolean; use true or false");
                Err(ConfigError::new(name, problem))
            }
        }
    }

    /// The value of a variable that holds a duration, such as `30s` or `5m`.
    ///
    /// # Errors
    /// If the variable has another value.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let parse = |text: &str| {
            humantime::parse_duration(text).map_err(|cause| {
                let problem =
                    format!("{text:?} is not a duration ({cause}); use a value such as 30s or 5m");
                ConfigError::new(name, problem)
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// The value of a variable that holds a port. A value such as `tcp://10.0.0.1:8500` counts as not
    /// set: Kubernetes sets `CONSUL_PORT` to such a value in pods if there is a Service named `consul`.
    ///
    /// # Errors
    /// If the value is not an integer from 1 to 65535.
    pub fn port(&self, name: &str) -> Result<Option<u16>, ConfigError> {
        let value = self.get(name).filter(|value| !is_service_link(name, value));
        value.map(|value| parse_port(name, value)).transpose()
    }

    /// All variables that are set and not empty, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .keys()
            .filter_map(|name| Some((name.as_str(), self.value(name)?)))
    }
}

/// Whether a variable is a service link: Kubernetes, like Docker before it, sets `<SERVICE>_PORT` to
/// a URL ("Accessing the Service", "Environment variables" in the Kubernetes documentation).
pub(crate) fn is_service_link(variable: &str, value: &str) -> bool {
    let scheme = value.split_once("://").map(|(scheme, _)| scheme);
    let is_link = matches!(scheme, Some("tcp" | "udp" | "sctp"));
    if is_link {
        tracing::debug!(variable, value, "ignoring a service link of Kubernetes");
    }
    is_link
}

/// Parses the value of a variable as a port; the error names the variable.
pub(crate) fn parse_port(variable: &str, value: &str) -> Result<u16, ConfigError> {
    match value.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(ConfigError::new(
            variable,
            format!("{value:?} is not a port; use a number from 1 to 65535"),
        )),
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let owned = variables.into_iter().map(|(k, v)| (k.into(), v.into()));
        Self {
            variables: owned.collect(),
            reads: None,
        }
    }
}

impl fmt::Debug for Environment {
    /// Prints names only, because values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(value: &str) -> Environment {
        Environment::from_iter([("A", value)])
    }

    #[test]
    fn a_value_is_trimmed_and_an_empty_one_is_not_set() {
        assert_eq!(environment(" x ").get("A"), Some("x"));
        for empty in ["", " \t"] {
            let environment = environment(empty);
            assert_eq!(environment.get("A"), None);
            assert_eq!(environment.iter().count(), 0);
            assert_eq!(environment.flag("A"), Ok(None));
            assert_eq!(environment.duration("A"), Ok(None));
            assert_eq!(environment.port("A"), Ok(None));
        }
        let changed = environment("x").with("A", "").with("C", "z").with("B", "y");
        assert_eq!(changed.iter().collect::<Vec<_>>(), [("B", "y"), ("C", "z")]);
        let debug = format!("{:?}", environment("secret"));
        assert!(
            debug.contains("\"A\"") && !debug.contains("secret"),
            "{debug}"
        );
    }

    #[test]
    fn a_flag_is_written_as_go_reads_it() {
        for (texts, expected) in [
            (["true", "TRUE", "True", "t", "T", "1"], true),
            (["false", "FALSE", "False", "f", "F", "0"], false),
        ] {
            for text in texts {
                assert_eq!(environment(text).flag("A"), Ok(Some(expected)), "{text}");
            }
        }
        let error = environment("yes").flag("A").unwrap_err().to_string();
        assert_eq!(error, "A: \"yes\" is not a boolean; use true or false");
    }

    #[test]
    fn a_port_or_a_duration_that_is_not_valid_is_named_with_valid_ones() {
        assert_eq!(environment("65535").port("A"), Ok(Some(65535)));
        for link in [
            "tcp://10.0.0.1:80",
            "udp://10.0.0.1:80",
            "sctp://10.0.0.1:80",
        ] {
            assert_eq!(environment(link).port("A"), Ok(None), "{link}");
        }
        for wrong in ["0", "65536", "http", "http://a:80"] {
            let error = environment(wrong).port("A").unwrap_err().to_string();
            let expected = format!("A: {wrong:?} is not a port; use a number from 1 to 65535");
            assert_eq!(error, expected);
        }
        let duration = environment("1m 30s").duration("A");
        assert_eq!(duration, Ok(Some(Duration::from_secs(90))));
        let error = environment("30").duration("A").unwrap_err().to_string();
        assert!(
            error.starts_with("A: \"30\" is not a duration ("),
            "{error}"
        );
        assert!(
            error.ends_with("; use a value such as 30s or 5m"),
            "{error}"
        );
    }

    #[test]
    fn the_names_that_are_read_are_recorded_on_request() {
        let plain = environment("x");
        plain.get("A");
        assert_eq!(plain.reads(), [""; 0]);
        let recording = environment("x").recording();
        let clone = recording.clone();
        clone.get("B");
        recording.get("A");
        recording.get("A");
        assert_eq!(recording.reads(), ["A", "B"]);
    }
}
