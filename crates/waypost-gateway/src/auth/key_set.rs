//! The public keys of an issuer of tokens: a JSON Web Key Set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// The keys that a token may be signed with.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The algorithms that the key may be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a key set. Keys that can't verify a signature are left out, so that a new kind of key doesn't
    /// make the others unusable.
    ///
    /// # Errors
    /// If it is not a key set, or no key is usable.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("not a JSON Web Key Set: the list \"keys\" is missing")?;
        let (mut usable, mut problem) = (Vec::new(), None);
        for (index, key) in keys.iter().enumerate() {
            match Key::parse(key) {
                Ok(key) => usable.push(key),
                Err(error) => problem = Some(format!("keys[{index}]: {error}")),
            }
        }
        match (usable.is_empty(), problem) {
            (true, Some(problem)) => Err(format!("no usable key; {problem}")),
            (true, None) => Err("no keys".to_owned()),
            (false, Some(problem)) => {
                tracing::debug!("a key is ignored: {problem}");
                Ok(Self(usable))
            }
            (false, None) => Ok(Self(usable)),
        }
    }

    /// The keys for a token with this algorithm and key id. Without an id all keys for the algorithm may
    /// have signed it.
    pub(super) fn candidates<'a>(
        &'a self,
        algorithm: Algorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let fits = move |key: &&Key| {
            let has_id = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
            has_id && key.algorithms.contains(&algorithm)
        };
        self.0.iter().filter(fits).map(|key| &key.key)
    }
}

impl Key {
    fn parse(json: &Value) -> Result<Self, String> {
        let jwk: Jwk = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
        let common = &jwk.common;
        let is_for_signatures = common.public_key_use.as_ref();
        if is_for_signatures.is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return Err("it is not for signatures".to_owned());
        }
        let operations = common.key_operations.as_ref();
        if operations.is_some_and(|list| !list.contains(&KeyOperations::Verify)) {
            return Err("it is not for verifying".to_owned());
        }
        let mut algorithms = algorithms(&jwk.algorithm)?.to_vec();
        if let Some(named) = common.key_algorithm {
            let named = named.to_string();
            algorithms.retain(|algorithm| format!("{algorithm:?}") == named);
            if algorithms.is_empty() {
                return Err(format!("the algorithm {named} doesn't fit the key"));
            }
        }
        Ok(Self {
            id: common.key_id.clone(),
            algorithms,
            key: DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?,
        })
    }
}

/// The algorithms that a kind of key can be used with. Secrets (`oct`) have none, because anyone who can
/// read the key set could sign tokens with them.
fn algorithms(parameters: &AlgorithmParameters) -> Result<&'static [Algorithm], String> {
    match parameters {
        AlgorithmParameters::RSA(_) => Ok(&[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ]),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Ok(&[Algorithm::ES256])
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            Ok(&[Algorithm::ES384])
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Ok(&[Algorithm::EdDSA])
        }
        AlgorithmParameters::OctetKey(_) => Err("secrets are not accepted".to_owned()),
        _ => Err("its type or curve is not supported".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ec(id: &str) -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": id,
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    fn with(mut key: Value, name: &str, value: &str) -> Value {
        key[name] = value.into();
        key
    }

    fn parse(keys: &[Value]) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn an_unusable_key_does_no_harm_to_others() {
        let secret = json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"});
        let unknown = json!({"kty": "AKP", "kid": "pq", "pub": "x"});
        let encryption = with(ec("e"), "use", "enc");
        let keys = [secret, unknown, encryption, ec("a"), json!(5)];
        let set = parse(&keys).unwrap();
        assert_eq!(set.candidates(Algorithm::ES256, None).count(), 1);
        assert_eq!(set.candidates(Algorithm::HS256, None).count(), 0);
    }

    #[test]
    fn a_key_is_found_by_its_id_and_its_algorithm() {
        let set = parse(&[ec("a"), with(ec("b"), "alg", "ES256")]).unwrap();
        assert_eq!(set.candidates(Algorithm::ES256, Some("b")).count(), 1);
        assert_eq!(set.candidates(Algorithm::ES256, Some("c")).count(), 0);
        assert_eq!(set.candidates(Algorithm::ES384, Some("a")).count(), 0);
        assert_eq!(set.candidates(Algorithm::RS256, None).count(), 0);
    }

    #[test]
    fn a_key_fits_the_algorithms_of_its_kind_and_curve() {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let rsa = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"});
        for (key, expected) in [
            (rsa, &[RS256, RS384, RS512, PS256, PS384, PS512][..]),
            (ec("a"), &[ES256]),
            (with(ec("a"), "crv", "P-384"), &[ES384]),
            (ed25519, &[EdDSA]),
        ] {
            let set = parse(std::slice::from_ref(&key)).unwrap();
            let all = [
                RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA,
            ];
            let found = all.into_iter();
            let found = found.filter(|algorithm| set.candidates(*algorithm, None).count() == 1);
            assert_eq!(found.collect::<Vec<_>>(), expected, "{key}");
        }
    }

    #[test]
    fn a_key_for_other_operations_than_verifying_is_not_used() {
        let for_operations = |operations: &[&str]| {
            let mut key = ec("a");
            key["key_ops"] = json!(operations);
            parse(&[key])
        };
        assert!(for_operations(&["sign", "verify"]).is_ok());
        let error = for_operations(&["sign"]).unwrap_err();
        assert!(error.contains("not for verifying"), "{error}");
    }

    #[test]
    fn a_set_without_usable_keys_says_why() {
        for (keys, why) in [
            (vec![], "no keys"),
            (vec![with(ec("a"), "crv", "P-521")], "not supported"),
            (vec![with(ec("a"), "alg", "RS256")], "doesn't fit"),
            (
                vec![json!({"kty": "oct", "k": "c2VjcmV0"})],
                "secrets are not accepted",
            ),
        ] {
            let error = parse(&keys).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(KeySet::parse(b"{}").unwrap_err().contains("\"keys\""));
        assert!(KeySet::parse(b"<html>").unwrap_err().contains("not JSON"));
    }
}
