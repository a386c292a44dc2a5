//! Who asks, and what they may do.

mod rbac;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub(crate) use rbac::{Attributes, allows, grant, grant_name, rules_of};

/// Whoever sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub groups: Vec<String>,
}

/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

impl User {
    /// A user with these groups and those that follow from the name.
    pub(crate) fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&it| it.to_owned()).collect();
        if let Some((namespace, _)) = name
            .strip_prefix(SERVICE_ACCOUNT)
            .and_then(|it| it.split_once(':'))
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        groups.push(AUTHENTICATED.to_owned());
        Self {
            name: name.to_owned(),
            groups,
        }
    }

    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }
}

/// The tokens and certificates by which users are known.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tokens: HashMap<String, (User, Option<Instant>)>,
    /// By their DER form: all of them are ours.
    certificates: HashMap<Vec<u8>, User>,
}

impl Credentials {
    /// Takes this token for this user's until then, or for ever.
    pub(crate) fn add_token(&self, token: &str, user: User, until: Option<Instant>) {
        self.known().tokens.insert(token.to_owned(), (user, until));
    }

    pub(crate) fn remove_token(&self, token: &str) {
        self.known().tokens.remove(token);
    }

    pub(crate) fn add_certificate(&self, der: Vec<u8>, user: User) {
        self.known().certificates.insert(der, user);
    }

    /// Whose token it is; None if it is nobody's, or expired.
    pub(crate) fn of_token(&self, token: &str) -> Option<User> {
        let known = self.known();
        let (user, until) = known.tokens.get(token)?;
        let is_valid = until.is_none_or(|until| Instant::now() < until);
        is_valid.then(|| user.clone())
    }

    pub(crate) fn of_certificate(&self, der: &[u8]) -> Option<User> {
        self.known().certificates.get(der).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
