//! The stack file, `waypost.toml`: which services a stack has and how each is run.
//!
//! [`StackFile::read`] parses and checks a file, and reports everything that is wrong with it at once.
//! [`services`] makes the descriptions that a [`Stack`](crate::Stack) is built of.

mod check;
mod document;
mod env_file;
mod file;
mod format;
mod services;
mod template;

pub use document::Problem;
pub use file::{FILE_NAME, StackFile, StackFileError};
pub use format::{
    BuiltIn, CommandLine, Contents, Defaults, EnvValue, OwnRegistration, PortOrOff, Ready,
    Register, Registration, Service, Stop, Watch,
};
pub use services::{Addresses, selected, services};
