//! The text of a kubeconfig.

use data_encoding::BASE64;
use serde_json::{Value, json};

/// How a user authenticates.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    Token(String),
    /// Both as PEM.
    Certificate {
        certificate: String,
        key: String,
    },
    Anonymous,
}

/// A kubeconfig with one context, as JSON, which is YAML too.
pub(crate) fn kubeconfig(server: &str, ca_pem: &str, namespace: &str, login: &Login) -> String {
    let base64 = |pem: &str| BASE64.encode(pem.as_bytes());
    let user: Value = match login {
        Login::Token(token) => json!({ "token": token }),
        Login::Certificate { certificate, key } => json!({
            "client-certificate-data": base64(certificate),
            "client-key-data": base64(key),
        }),
        Login::Anonymous => json!({}),
    };
    let cluster = json!({ "server": server, "certificate-authority-data": base64(ca_pem) });
    let context = json!({ "cluster": "fake", "user": "user", "namespace": namespace });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "fake", "cluster": cluster }],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "fake", "context": context }],
        "current-context": "fake",
    })
    .to_string()
}
