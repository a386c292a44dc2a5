//! Users, and the tokens and certificates that they authenticate with.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The user with all permissions.
pub(crate) const ADMIN: &str = "admin";
const ANONYMOUS: &str = "system:anonymous";

/// The user that sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
}

impl User {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// The user of requests without credentials.
    pub(crate) fn anonymous() -> Self {
        Self::new(ANONYMOUS)
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.name == ADMIN
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// Namespace and name, if the user is a service account.
    pub(crate) fn service_account(&self) -> Option<(&str, &str)> {
        let account = self.name.strip_prefix("system:serviceaccount:")?;
        account.split_once(':')
    }
}

/// The tokens and certificates that are accepted.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tokens: HashMap<String, User>,
    /// The users by the DER form of their certificate.
    certificates: HashMap<Vec<u8>, User>,
}

impl Credentials {
    pub(crate) fn add_token(&self, token: &str, user: User) {
        self.known().tokens.insert(token.to_owned(), user);
    }

    pub(crate) fn remove_token(&self, token: &str) {
        self.known().tokens.remove(token);
    }

    pub(crate) fn add_certificate(&self, der: Vec<u8>, user: User) {
        self.known().certificates.insert(der, user);
    }

    /// The user with this token; None if it is not accepted.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<User> {
        self.known().tokens.get(token).cloned()
    }

    /// The user with this certificate; None if it is not accepted.
    pub(crate) fn user_of_certificate(&self, der: &[u8]) -> Option<User> {
        self.known().certificates.get(der).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
