//! The extension module `waypost._waypost`: the Rust library for Python. The Python modules beside it
//! are its public interface.
//!
//! Two rules keep the GIL and the library's locks from waiting for each other. Functions of the
//! application, such as a weight function, may run while the library holds a lock, and need the GIL;
//! so a thread releases the GIL before it calls anything in the library that may wait or lock. And the
//! state in this module is locked only while the GIL is held, so that no lock is held when another
//! thread forks.

mod client;
mod errors;
mod health;
mod instance;
mod lease;
mod log;
mod provider;
mod registration;
mod retry;
mod runtime;
mod strategy;

/// The extension module.
#[pyo3::pymodule]
mod _waypost {
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::health::HealthChecks;
    #[pymodule_export]
    use crate::instance::{Instance, fallback_instance};
    #[pymodule_export]
    use crate::lease::Lease;
    #[pymodule_export]
    use crate::registration::{Registrar, deregister_all};
    #[pymodule_export]
    use crate::retry::RetryBudget;
    #[pymodule_export]
    use crate::runtime::{after_fork_in_child, shutdown};

    /// The number of attempts of an HTTP request, the first included.
    #[pymodule_export]
    const ATTEMPTS: usize = waypost::integration::retry::ATTEMPTS;
}
