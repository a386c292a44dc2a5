//! Verifies the signatures of tokens with ring, for `jsonwebtoken`.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, signature,
};
use ring::signature as ring_signature;
use ring::signature::{RsaParameters, VerificationAlgorithm};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory: verifier,
    // Only needed to make keys for others, which the gateway doesn't do.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` use ring, unless the program has already chosen something else.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if CryptoProvider::try_get_default().is_none() {
            // An error means that another thread has already chosen a provider, which works as well.
            let _ = PROVIDER.install_default();
        }
    });
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // A key of another kind must never be used: if a public key were accepted as an HMAC secret, anyone
    // could sign tokens.
    if key.family() != algorithm.family() || key.family() == AlgorithmFamily::Hmac {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key: key.clone(),
    }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signed: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let verified = match (self.key.kind(), rsa(self.algorithm), other(self.algorithm)) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(rsa), _) => {
                let key = ring_signature::RsaPublicKeyComponents { n, e };
                key.verify(rsa, message, signed)
            }
            (DecodingKeyKind::SecretOrDer(bytes), _, Some(algorithm)) => {
                let key = ring_signature::UnparsedPublicKey::new(algorithm, bytes);
                key.verify(message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

/// Keys of fewer than 2,048 bits are refused.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn other(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ring_signature::ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use ring::rand::SystemRandom;
    use ring::rsa::KeyPairComponents;
    use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair};

    use super::*;

    const RSA: [(Algorithm, &'static dyn RsaEncoding); 6] = [
        (Algorithm::RS256, &ring_signature::RSA_PKCS1_SHA256),
        (Algorithm::RS384, &ring_signature::RSA_PKCS1_SHA384),
        (Algorithm::RS512, &ring_signature::RSA_PKCS1_SHA512),
        (Algorithm::PS256, &ring_signature::RSA_PSS_SHA256),
        (Algorithm::PS384, &ring_signature::RSA_PSS_SHA384),
        (Algorithm::PS512, &ring_signature::RSA_PSS_SHA512),
    ];

    /// The example of RFC 7515, appendix A.2. The private key is there too.
    const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const D: &str = "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ";
    const P: &str = "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc";
    const Q: &str = "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc";
    const DP: &str = "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0";
    const DQ: &str = "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU";
    const Q_INV: &str = "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U";
    const MESSAGE: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    fn verify(algorithm: Algorithm, message: &str) -> Result<bool> {
        install();
        let key = DecodingKey::from_rsa_components(MODULUS, "AQAB").unwrap();
        jsonwebtoken::crypto::verify(SIGNATURE, message.as_bytes(), &key, algorithm)
    }

    fn rsa_key_pair() -> RsaKeyPair {
        let [n, d, p, q, d_p, d_q, q_inv] = [MODULUS, D, P, Q, DP, DQ, Q_INV]
            .map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap());
        let public_key = ring_signature::RsaPublicKeyComponents {
            n,
            e: vec![1, 0, 1],
        };
        let components = KeyPairComponents {
            public_key,
            d,
            p,
            q,
            dP: d_p,
            dQ: d_q,
            qInv: q_inv,
        };
        RsaKeyPair::from_components(&components).unwrap()
    }

    /// Signatures of the message with keys of all kinds, each with its algorithm and public key.
    fn signatures() -> Vec<(Algorithm, DecodingKey, String)> {
        let random = SystemRandom::new();
        let message = MESSAGE.as_bytes();
        let mut all = Vec::new();
        let pair = rsa_key_pair();
        for (algorithm, encoding) in RSA {
            let mut signed = vec![0; pair.public().modulus_len()];
            pair.sign(encoding, &random, message, &mut signed).unwrap();
            let key = DecodingKey::from_rsa_components(MODULUS, "AQAB").unwrap();
            all.push((algorithm, key, BASE64URL_NOPAD.encode(&signed)));
        }
        for (algorithm, signing) in [
            (
                Algorithm::ES256,
                &ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            (
                Algorithm::ES384,
                &ring_signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
        ] {
            let pair = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(signing, pair.as_ref(), &random).unwrap();
            let signed = pair.sign(&random, message).unwrap();
            let key = DecodingKey::from_ec_der(pair.public_key().as_ref());
            all.push((algorithm, key, BASE64URL_NOPAD.encode(signed.as_ref())));
        }
        let pair = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
        let key = DecodingKey::from_ed_der(pair.public_key().as_ref());
        let signed = BASE64URL_NOPAD.encode(pair.sign(message).as_ref());
        all.push((Algorithm::EdDSA, key, signed));
        all
    }

    #[test]
    fn a_signature_is_verified_by_its_own_algorithm_and_by_no_other() {
        install();
        let signatures = signatures();
        for (signed_with, key, signature) in &signatures {
            for (algorithm, ..) in &signatures {
                let verified =
                    jsonwebtoken::crypto::verify(signature, MESSAGE.as_bytes(), key, *algorithm);
                let is_valid = verified.unwrap_or(false);
                assert_eq!(
                    is_valid,
                    algorithm == signed_with,
                    "{signed_with:?} as {algorithm:?}"
                );
            }
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_verified() {
        assert!(verify(Algorithm::RS256, MESSAGE).unwrap());
        assert!(!verify(Algorithm::RS256, &MESSAGE.replace("eyJ", "eyK")).unwrap());
        assert!(!verify(Algorithm::RS512, MESSAGE).unwrap());
    }

    #[test]
    fn a_key_is_used_only_with_algorithms_of_its_kind() {
        for algorithm in [Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA] {
            assert!(verify(algorithm, MESSAGE).is_err(), "{algorithm:?}");
        }
    }
}
