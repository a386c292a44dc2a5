//! The kubeconfig that names the server and its users.

use data_encoding::BASE64;

/// How a user is known.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    Token(String),
    /// PEM.
    Certificate {
        certificate: String,
        key: String,
    },
    Anonymous,
}

/// A context: a user and the namespace it starts in.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub name: String,
    pub namespace: String,
    pub login: Login,
}

/// The file's text. The first context is the current one unless another is named.
pub(crate) fn write(server: &str, ca_pem: &str, contexts: &[Context], current: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: stand-in\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {}\n\
         contexts:\n",
        BASE64.encode(ca_pem.as_bytes())
    );
    for context in contexts {
        let Context {
            name, namespace, ..
        } = context;
        text += &format!(
            "- name: {name}\n  context:\n    cluster: stand-in\n    user: {name}\n    \
             namespace: {namespace}\n"
        );
    }
    text += &format!("current-context: {current}\nusers:\n");
    for context in contexts {
        text += &format!("- name: {}\n  user:", context.name);
        text += &match &context.login {
            Login::Token(token) => format!("\n    token: {token}\n"),
            Login::Certificate { certificate, key } => format!(
                "\n    client-certificate-data: {}\n    client-key-data: {}\n",
                BASE64.encode(certificate.as_bytes()),
                BASE64.encode(key.as_bytes())
            ),
            Login::Anonymous => " {}\n".to_owned(),
        };
    }
    text
}
