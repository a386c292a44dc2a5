//! Being found: registrations that are kept true.

mod reconciler;
mod registration;

pub use reconciler::{Registrar, RegistrationState};
pub use registration::{Check, Registration, ServiceRegistration};
