//! Being found: registrations that are kept true.

mod check;
mod reconciler;
mod registration;

pub use check::{Check, CheckKind, HttpCheck};
pub use reconciler::{Registrar, RegistrationState};
pub use registration::{Registration, ServiceRegistration};
