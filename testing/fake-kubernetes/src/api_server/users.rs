//! Who may use the server, with which credentials, and what for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{ADMIN, ApiServer};
use crate::Error;
use crate::access::{MASTERS, User, grant, grant_name};
use crate::kubeconfig::{self, Context, Login};

impl ApiServer {
    /// A kubeconfig whose current context is that of this user, or `USER-certificate` for the one
    /// that shows a certificate, or `anonymous`.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn kubeconfig_of(&self, context: &str) -> Result<PathBuf, Error> {
        let path = self
            .folder
            .path()
            .join(format!("kubeconfig-{}", context.replace([':', '/'], "-")));
        self.write_kubeconfig(&path, context)?;
        Ok(path)
    }

    /// Adds a user that may do nothing yet, with a context of its name in the kubeconfig, and gives
    /// its token. `system:serviceaccount:NAMESPACE:NAME` is a service account.
    ///
    /// # Errors
    /// If no certificate can be made, or the kubeconfig can't be written.
    pub fn add_user(&self, name: &str) -> Result<String, Error> {
        self.add_user_in(name, &[])
    }

    fn add_user_in(&self, name: &str, groups: &[&str]) -> Result<String, Error> {
        let user = User::new(name, groups);
        let token = self.add_token(name, None);
        let issued = self.authority.issue_for_user(&user)?;
        let certificates = &self.app.credentials;
        certificates.add_certificate(issued.der.to_vec(), user);
        let context = |name: String, login| Context {
            name,
            namespace: self.namespace.clone(),
            login,
        };
        let certificate = Login::Certificate {
            certificate: issued.pem,
            key: issued.key_pem,
        };
        self.contexts().extend([
            context(name.to_owned(), Login::Token(token.clone())),
            context(format!("{name}-certificate"), certificate),
        ]);
        self.write_kubeconfig(&self.kubeconfig, ADMIN)?;
        Ok(token)
    }

    /// One more token of a user, which is taken for so long, or for ever. (The API server takes
    /// an expired token for up to 70 s more; this one doesn't.)
    pub fn add_token(&self, user: &str, lifetime: Option<Duration>) -> String {
        let groups: &[&str] = if user == ADMIN { &[MASTERS] } else { &[] };
        let token = self.app.uid();
        let until = lifetime.map(|it| Instant::now() + it);
        let credentials = &self.app.credentials;
        credentials.add_token(&token, User::new(user, groups), until);
        token
    }

    /// Takes a token no more. Watches that are open go on.
    pub fn revoke_token(&self, token: &str) {
        self.app.credentials.remove_token(token);
    }

    /// Lets a user do this, in a namespace or everywhere, and nothing else there that was granted
    /// so before. `rules` are those of a Role: `[{"apiGroups": …, "resources": …, "verbs": …}]`.
    ///
    /// # Panics
    /// If the rules are none.
    pub fn grant(&self, user: &str, namespace: Option<&str>, rules: &Value) {
        for object in grant(&User::new(user, &[]), namespace, rules) {
            self.put(&object);
        }
    }

    /// Takes back what was granted to a user there. Watches that are open go on.
    pub fn revoke(&self, user: &str, namespace: Option<&str>) {
        let name = grant_name(&User::new(user, &[]));
        match namespace {
            Some(namespace) => {
                self.delete("rolebindings", namespace, &name);
            }
            None => {
                self.delete("clusterrolebindings", "", &name);
            }
        }
    }

    /// What a cluster has from its first day on.
    pub(super) fn populate(&self) -> Result<(), Error> {
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            self.put(&crate::manifest::namespace(namespace));
        }
        self.put(&crate::manifest::namespace(&self.namespace));
        self.put(&crate::manifest::service(
            "default",
            "kubernetes",
            &[("https", 443)],
        ));
        self.add_user_in(ADMIN, &[MASTERS])?;
        self.contexts().push(Context {
            name: "anonymous".to_owned(),
            namespace: self.namespace.clone(),
            login: Login::Anonymous,
        });
        self.write_kubeconfig(&self.kubeconfig, ADMIN)
    }

    fn write_kubeconfig(&self, path: &Path, current: &str) -> Result<(), Error> {
        let text = kubeconfig::write(&self.url(), &self.ca_pem(), &self.contexts(), current);
        // It holds keys, though of nothing that lasts.
        write_private(path, &text).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    }

    fn contexts(&self) -> MutexGuard<'_, Vec<Context>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
