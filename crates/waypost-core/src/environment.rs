use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::ConfigError;

/// The environment variables of a process, taken once.
///
/// Everything that reads the environment is given one of these, so that a test can say what is in
/// it. A variable that is set but empty counts as not set, as in a shell's `${NAME:-default}`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What this process was started with. Values that are not UTF-8 are left out.
    pub fn of_this_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The same with a variable set; an empty value counts as not set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The value of a variable, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// What a variable says that is to be true or false, in the forms of Go's `ParseBool`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "TRUE" | "True" | "t" | "T" | "1") => Ok(Some(true)),
            Some("false" | "FALSE" | "False" | "f" | "F" | "0") => Ok(Some(false)),
            Some(other) => {
                let problem = format!("{other:?} is neither true nor false");
                Err(ConfigError::new(name, problem))
            }
        }
    }

    /// What a variable says that is to be a time, such as `30s` or `5m`.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let parsed = |text: &str| {
            humantime::parse_duration(text).map_err(|fault| {
                let problem =
                    format!("{text:?} is no time ({fault}); use a form such as 30s or 5m");
                ConfigError::new(name, problem)
            })
        };
        self.get(name).map(parsed).transpose()
    }

    /// The value of a variable that holds a port.
    ///
    /// # Errors
    /// If it is set to anything but a number from 1 to 65535.
    pub fn port(&self, name: &str) -> Result<Option<u16>, ConfigError> {
        let value = self.get(name);
        value.map(|value| parse_port(name, value)).transpose()
    }

    /// All variables that are set and not empty, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .keys()
            .filter_map(|name| Some((name.as_str(), self.get(name)?)))
    }
}

/// The port in a variable's value; the error names the variable.
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
        Self(owned.collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
