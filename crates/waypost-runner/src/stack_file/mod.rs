//! The stack file, `waypost.toml`: the services of a stack, and how each is run.
//!
//! [`StackFile::read`] parses and checks a file, and reports all problems at once. [`services`] converts
//! it to the descriptions from which a [`Stack`](crate::Stack) is built.

mod check;
mod document;
mod env_file;
mod file;
mod format;
mod needs_env;
mod services;
mod tables;
mod template;

pub use document::Problem;
pub use file::{FILE_NAME, StackFile, StackFileError};
pub use format::{
    BuiltIn, CommandLine, Contents, Defaults, EnvValue, OwnRegistration, PortOrOff, Ready,
    Register, Registration, Service, Stop, Watch,
};
pub use needs_env::{MissingVariables, missing_variables};
pub use services::{Addresses, selected, services};
