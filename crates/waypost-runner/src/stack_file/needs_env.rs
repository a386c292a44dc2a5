//! Variables that services need and that are not set.

use super::env_file::EnvFile;
use super::file::StackFile;
use super::format::Service;

/// The variables of `needs-env` that a service lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingVariables {
    /// The service.
    pub service: String,
    /// The variables, in the order of the file.
    pub variables: Vec<String>,
    /// The file of variables to add them to.
    pub file: String,
}

/// The variables of `needs-env` that are set neither in the stack file, nor in its files of variables,
/// nor in the environment of this process; by service.
pub fn missing_variables(file: &StackFile) -> Vec<MissingVariables> {
    let missing = file
        .contents()
        .services
        .iter()
        .filter_map(|(name, service)| {
            let variables = missing_variables_of(file, service);
            (!variables.is_empty()).then(|| MissingVariables {
                service: name.clone(),
                variables,
                file: file_of_variables(file).to_owned(),
            })
        });
    missing.collect()
}

/// The variables that one service lacks.
pub(super) fn missing_variables_of(file: &StackFile, service: &Service) -> Vec<String> {
    let entries = file.contents().env_files.iter().chain(&service.env_files);
    let files = entries.filter_map(|entry| EnvFile::read(file.directory(), entry).ok().flatten());
    let in_files: Vec<_> = files.flat_map(|file| file.variables).collect();
    let is_set = |variable: &String| {
        let own = service.env.get(variable);
        own.is_some_and(|value| !value.to_string().is_empty())
            || in_files
                .iter()
                .any(|(name, value)| name == variable && !value.is_empty())
            || std::env::var_os(variable).is_some_and(|value| !value.is_empty())
    };
    let needed = service.needs_env.iter();
    needed
        .filter(|variable| !is_set(variable))
        .cloned()
        .collect()
}

/// The file to which a missing variable should be added.
pub(super) fn file_of_variables(file: &StackFile) -> &str {
    let last = file.contents().env_files.last();
    last.map_or(".env", |entry| entry.trim_end_matches('?'))
}
