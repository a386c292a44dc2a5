//! The Secrets with the certificates of listeners. Each is read by its name, so the gateway needs no permission
//! to list Secrets; see docs/decisions/reading-secrets.md.
//!
//! A valid certificate stays in use while its Secret can't be read, is deleted or has invalid content. It is
//! forgotten when no listener refers to the Secret any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::{StreamExt, stream};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use waypost::provider::kubernetes::objects::{ObjectClient, ObjectKey};
use waypost::{ProviderError, ProviderErrorKind};

use super::objects::SECRETS;
use crate::server_tls::certified_key;

/// The first pause before a Secret that can't be used is read again. It doubles each time, up to the interval.
const RETRY: Duration = Duration::from_secs(5);
/// How many Secrets are read at the same time.
const CONCURRENCY: usize = 8;
/// The maximum length of the description of a problem, in characters.
const MAX_PROBLEM: usize = 1000;

/// The Secrets that were read at least once, successfully or not.
pub(super) type Secrets = BTreeMap<ObjectKey, Secret>;

/// What is known about a Secret.
#[derive(Clone, Default)]
pub(super) struct Secret {
    /// The last valid certificate.
    pub(super) certificate: Option<Arc<CertifiedKey>>,
    /// Why the Secret can't be used at the moment.
    problem: Option<SecretProblem>,
}

/// Why a Secret can't be used. The text continues a sentence that begins with the Secret's name.
#[derive(Clone, PartialEq, Eq)]
struct SecretProblem {
    text: String,
    /// The kind of error if the request failed; `None` if the content is wrong or there is no such Secret.
    request: Option<ProviderErrorKind>,
}

impl Secret {
    /// Why it can't be used, and whether a certificate stays in use. Continues a sentence that begins with its
    /// name.
    pub(super) fn explanation(&self) -> Option<String> {
        let problem = &self.problem.as_ref()?.text;
        Some(match &self.certificate {
            Some(_) => format!("{problem}; its last valid certificate stays in use"),
            None => problem.clone(),
        })
    }

    /// Applies the answer to a request.
    fn apply(&mut self, key: &ObjectKey, answer: Result<Option<Value>, ProviderError>) {
        match read(answer) {
            Ok(read) => {
                // The same certificate has the same key.
                let is_same = |known: &Arc<CertifiedKey>| known.cert == read.cert;
                let is_new = !self.certificate.as_ref().is_some_and(is_same);
                if is_new {
                    self.certificate = Some(Arc::new(read));
                }
                if is_new || self.problem.is_some() {
                    tracing::info!("the certificate of Secret {key} is in use");
                }
                self.problem = None;
            }
            Err(problem) => {
                // The texts of failed requests vary, so only their kinds are compared.
                let is_known = self.problem.as_ref().is_some_and(|known| {
                    *known == problem
                        || (known.request.is_some() && known.request == problem.request)
                });
                if is_known {
                    return;
                }
                self.problem = Some(problem);
                let explanation = self.explanation().unwrap_or_default();
                tracing::warn!("Secret {key} {explanation}");
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_certificate = match (&self.certificate, &other.certificate) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_certificate && self.problem == other.problem
    }
}

/// The certificate in an answer.
fn read(answer: Result<Option<Value>, ProviderError>) -> Result<CertifiedKey, SecretProblem> {
    let (text, request) = match answer {
        Ok(Some(secret)) => match certificate(&secret) {
            Ok(certificate) => return Ok(certificate),
            Err(problem) => (problem, None),
        },
        Ok(None) => ("was not found".to_owned(), None),
        Err(error) => {
            let remedy = match error.kind() {
                ProviderErrorKind::NotAuthorised => {
                    "; the gateway needs the verb get for it, see \"HTTPS in Kubernetes\" in docs/gateway.md"
                }
                _ => "",
            };
            let text = format!("can't be read: {error}{remedy}");
            (text, Some(error.kind()))
        }
    };
    let text = text.chars().take(MAX_PROBLEM).collect();
    Err(SecretProblem { text, request })
}

/// The certificate in a Secret.
///
/// # Errors
/// What is wrong, without any of its content.
pub(super) fn certificate(secret: &Value) -> Result<CertifiedKey, String> {
    const TYPE: &str = "kubernetes.io/tls";
    let found = secret["type"].as_str().unwrap_or_default();
    if found != TYPE {
        return Err(format!("is of type {found:?} instead of {TYPE}"));
    }
    let entry = |name: &str| {
        let encoded = secret["data"][name].as_str();
        let encoded = encoded.ok_or_else(|| format!("has no {name}"))?;
        let decoded = BASE64.decode(encoded.as_bytes());
        decoded.map_err(|_| format!("has a {name} that is not in Base64"))
    };
    let (certificate, key) = (entry("tls.crt")?, entry("tls.key")?);
    certified_key(("tls.crt", &certificate), ("tls.key", &key))
        .map_err(|error| format!("can't be used: {error}"))
}

/// Reads the wanted Secrets again and again, as long as it is polled: usable ones at this interval, others
/// sooner. Never returns.
pub(super) async fn follow(
    client: &ObjectClient,
    interval: Duration,
    mut wanted: watch::Receiver<BTreeSet<ObjectKey>>,
    known: watch::Sender<Secrets>,
) {
    let mut entries: BTreeMap<ObjectKey, Entry> = BTreeMap::new();
    loop {
        let keys = wanted.borrow_and_update().clone();
        entries.retain(|key, _| keys.contains(key));
        for key in keys {
            entries.entry(key).or_insert_with(Entry::due_now);
        }
        let now = Instant::now();
        let due = entries.iter().filter(|(_, entry)| entry.due_at <= now);
        let due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
        let answers = stream::iter(due)
            .map(|key| async {
                let answer = client.get(&SECRETS, &key).await;
                (key, answer)
            })
            .buffer_unordered(CONCURRENCY);
        for (key, answer) in answers.collect::<Vec<_>>().await {
            if let Some(entry) = entries.get_mut(&key) {
                entry.apply(&key, answer, interval);
            }
        }
        known.send_if_modified(|known| replace(known, &entries));
        let next = entries.values().map(|entry| entry.due_at).min();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// Replaces the known Secrets by those of the entries. Returns whether anything has changed.
fn replace(known: &mut Secrets, entries: &BTreeMap<ObjectKey, Entry>) -> bool {
    let is_same = known.len() == entries.len()
        && (known.iter().zip(entries)).all(|((key, secret), (other_key, entry))| {
            key == other_key && secret.is_same(&entry.secret)
        });
    if !is_same {
        let secrets = entries.iter();
        *known = secrets
            .map(|(key, entry)| (key.clone(), entry.secret.clone()))
            .collect();
    }
    !is_same
}

/// A wanted Secret.
struct Entry {
    secret: Secret,
    due_at: Instant,
    /// The pause after the next failure.
    retry: Duration,
}

impl Entry {
    fn due_now() -> Self {
        Self {
            secret: Secret::default(),
            due_at: Instant::now(),
            retry: RETRY,
        }
    }

    fn apply(
        &mut self,
        key: &ObjectKey,
        answer: Result<Option<Value>, ProviderError>,
        interval: Duration,
    ) {
        self.secret.apply(key, answer);
        let pause = match self.secret.problem {
            None => {
                self.retry = RETRY;
                interval
            }
            Some(_) => {
                let longer = self.retry.saturating_mul(2);
                std::mem::replace(&mut self.retry, longer).min(interval)
            }
        };
        self.due_at = Instant::now() + pause;
    }
}

#[cfg(test)]
impl Secret {
    /// A Secret with a certificate for this name.
    pub(super) fn valid(name: &str) -> Self {
        let mut secret = Self::default();
        secret.apply(
            &ObjectKey::new("shop", name),
            Ok(Some(tests::tls_secret(name).0)),
        );
        secret
    }

    /// A Secret that doesn't exist.
    pub(super) fn missing() -> Self {
        let mut secret = Self::default();
        secret.apply(&ObjectKey::new("shop", "missing"), Ok(None));
        secret
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Secret with a new certificate for this name, and its key.
    pub(super) fn tls_secret(name: &str) -> (Value, String) {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = pair.signing_key.serialize_pem();
        (secret_of(&pair.cert.pem(), &key), key)
    }

    fn secret_of(certificate: &str, key: &str) -> Value {
        let encoded = |text: &str| BASE64.encode(text.as_bytes());
        json!({
            "type": "kubernetes.io/tls",
            "data": { "tls.crt": encoded(certificate), "tls.key": encoded(key) },
        })
    }

    fn failure(kind: ProviderErrorKind, message: &str) -> ProviderError {
        ProviderError::new("kubernetes", kind, message.to_owned())
    }

    #[test]
    fn a_secret_that_cannot_be_used_says_what_is_wrong_and_shows_nothing_of_its_content() {
        let (good, key) = tls_secret("a.example");
        let edited = |pointer: &str, value: Value| {
            let mut secret = good.clone();
            *secret.pointer_mut(pointer).unwrap() = value;
            secret
        };
        let encoded = |text: &str| Value::from(BASE64.encode(text.as_bytes()));
        let in_one_line = key.replace('\n', "");
        let no_key = "can't be used: tls.key: contains no private key in PEM format";
        let no_certificate = "can't be used: tls.crt: contains no certificate in PEM format";
        for (secret, expected) in [
            (
                edited("/type", "Opaque".into()),
                "is of type \"Opaque\" instead of kubernetes.io/tls",
            ),
            (edited("/data/tls.crt", Value::Null), "has no tls.crt"),
            (
                edited("/data/tls.key", "%".into()),
                "has a tls.key that is not in Base64",
            ),
            (edited("/data/tls.crt", encoded("text")), no_certificate),
            (edited("/data/tls.crt", encoded(&key)), no_certificate),
            (
                edited("/data/tls.crt", encoded(&in_one_line)),
                no_certificate,
            ),
            (edited("/data/tls.key", encoded("")), no_key),
            (edited("/data/tls.key", encoded(&in_one_line)), no_key),
            (
                edited("/data/tls.key", encoded(&tls_secret("a.example").1)),
                "can't be used: tls.key: does not fit the certificate in tls.crt: ",
            ),
        ] {
            let problem = certificate(&secret).err().unwrap();
            assert!(problem.starts_with(expected), "{problem}");
            let body = key.lines().nth(1).unwrap();
            let body_bytes = format!("{:?}", &body.as_bytes()[..8]);
            let body_bytes = body_bytes.trim_matches(['[', ']']);
            assert!(!problem.contains(body) && !problem.contains(body_bytes));
        }
    }

    #[test]
    fn the_last_valid_certificate_stays_in_use_whatever_happens_to_its_secret() {
        let key = ObjectKey::new("shop", "tls");
        let mut secret = Secret::default();
        secret.apply(&key, Ok(None));
        assert!(secret.certificate.is_none());
        assert_eq!(secret.explanation().unwrap(), "was not found");
        let (good, _) = tls_secret("a.example");
        secret.apply(&key, Ok(Some(good.clone())));
        let first = secret.certificate.clone().unwrap();
        assert_eq!(secret.explanation(), None);
        for (answer, expected) in [
            (Ok(None), "was not found"),
            (Ok(Some(json!({ "type": "Opaque" }))), "is of type"),
            (
                Err(failure(ProviderErrorKind::NotAuthorised, "403")),
                "can't be read: kubernetes: 403; the gateway needs the verb get",
            ),
        ] {
            secret.apply(&key, answer);
            let kept = secret.certificate.clone().unwrap();
            assert!(Arc::ptr_eq(&kept, &first));
            let explanation = secret.explanation().unwrap();
            assert!(explanation.starts_with(expected), "{explanation}");
            assert!(explanation.ends_with("; its last valid certificate stays in use"));
        }
        secret.apply(&key, Ok(Some(good)));
        assert!(Arc::ptr_eq(&secret.certificate.clone().unwrap(), &first));
        secret.apply(&key, Ok(Some(tls_secret("a.example").0)));
        assert!(!Arc::ptr_eq(&secret.certificate.clone().unwrap(), &first));
        assert_eq!(secret.explanation(), None);
    }

    #[test]
    fn a_failure_with_another_text_is_no_change() {
        let key = ObjectKey::new("shop", "tls");
        let mut secret = Secret::default();
        secret.apply(&key, Err(failure(ProviderErrorKind::Unreachable, "one")));
        let before = secret.clone();
        secret.apply(&key, Err(failure(ProviderErrorKind::Unreachable, "two")));
        assert!(secret.is_same(&before));
        secret.apply(&key, Ok(None));
        assert!(!secret.is_same(&before));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_in_use_is_read_at_the_interval_and_others_at_growing_pauses() {
        let interval = Duration::from_secs(30);
        let key = ObjectKey::new("shop", "tls");
        let mut entry = Entry::due_now();
        let mut pause = |answer| {
            entry.apply(&key, answer, interval);
            entry.due_at.duration_since(Instant::now()).as_secs()
        };
        let pauses = [0; 5].map(|_| pause(Ok(None)));
        assert_eq!(pauses, [5, 10, 20, 30, 30]);
        assert_eq!(pause(Ok(Some(tls_secret("a.example").0))), 30);
        assert_eq!(pause(Ok(None)), 5);
    }
}
