//! An issuer of JSON Web Tokens.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use http::{Response, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::{Origin, body};

/// A key that signs tokens with ES256.
pub(crate) struct Issuer {
    id: &'static str,
    key: EcdsaKeyPair,
}

impl Issuer {
    pub(crate) fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key");
        Self { id, key }
    }

    /// The public keys of issuers.
    pub(crate) fn key_set(issuers: &[&Self]) -> String {
        let keys: Vec<_> = issuers.iter().map(|issuer| issuer.public()).collect();
        json!({ "keys": keys }).to_string()
    }

    fn public(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id,
            "x": BASE64URL_NOPAD.encode(&point[1..33]),
            "y": BASE64URL_NOPAD.encode(&point[33..]),
        })
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": "ES256", "kid": self.id}), claims)
    }

    /// A token with any head.
    pub(crate) fn token_with(&self, head: &Value, claims: &Value) -> String {
        let encode = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
        let message = format!("{}.{}", encode(head), encode(claims));
        let signed = self.key.sign(&SystemRandom::new(), message.as_bytes());
        let signature = BASE64URL_NOPAD.encode(signed.expect("a signature").as_ref());
        format!("{message}.{signature}")
    }
}

/// Seconds since 1970, `offset` from now.
pub(crate) fn seconds_from_now(offset: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    now.as_secs() as i64 + offset
}

/// A server of key sets that can fail.
pub(crate) struct KeyServer {
    pub(crate) origin: Origin,
    keys: Arc<Mutex<Option<String>>>,
}

impl KeyServer {
    pub(crate) async fn start(keys: String) -> Self {
        let keys = Arc::new(Mutex::new(Some(keys)));
        let served = Arc::clone(&keys);
        let origin = Origin::start(move |_| {
            let keys = served.lock().expect("no panic").clone();
            async move {
                let mut response = Response::new(body(keys.clone().unwrap_or_default()));
                if keys.is_none() {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                response
            }
        })
        .await;
        Self { origin, keys }
    }

    /// Serves these keys, or errors.
    pub(crate) fn serve(&self, keys: Option<String>) {
        *self.keys.lock().expect("no panic") = keys;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys?v=1", self.origin.address)
    }
}
