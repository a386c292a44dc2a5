//! API keys, which programs send with their requests.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER_PERMISSIVE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use ring::digest;
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;

use super::followed_file;
use crate::problem::Problem;

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// Keys by the beginning of their SHA-256 digest. The timing of a look-up may reveal the beginning of a
/// digest, but nothing about a key; the digests themselves are compared in constant time.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ApiKeys(HashMap<[u8; 4], Vec<ApiKey>>);

#[derive(PartialEq)]
struct ApiKey {
    name: Arc<str>,
    digest: Digest,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKey").field(&self.name).finish()
    }
}

impl ApiKeys {
    /// Reads one key per line or comma: its name, and the key or `sha256:` with the digest of the key in
    /// hexadecimal. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// The line, and what is wrong with it. The key is not part of the error.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with('#') {
                continue;
            }
            for entry in line.split(',').filter(|entry| !entry.trim().is_empty()) {
                let added = ApiKey::parse(entry).and_then(|key| keys.add(key));
                added.map_err(|problem| format!("line {}: {problem}", index + 1))?;
            }
        }
        if keys.0.is_empty() {
            return Err("it contains no key; write one NAME KEY per line".to_owned());
        }
        Ok(keys)
    }

    fn add(&mut self, key: ApiKey) -> Result<(), String> {
        if let Some(name) = self.find_digest(&key.digest) {
            return Err(format!("this is also the key of {name:?}"));
        }
        self.0.entry(start(&key.digest)).or_default().push(key);
        Ok(())
    }

    /// The name of a key.
    fn find(&self, key: &[u8]) -> Option<Arc<str>> {
        self.find_digest(&sha256(key))
    }

    fn find_digest(&self, digest: &Digest) -> Option<Arc<str>> {
        let keys = self.0.get(&start(digest))?;
        let is_it = |key: &&ApiKey| bool::from(key.digest.ct_eq(digest));
        keys.iter().find(is_it).map(|key| Arc::clone(&key.name))
    }
}

impl ApiKey {
    fn parse(entry: &str) -> Result<Self, String> {
        let mut words = entry.split_whitespace();
        let (Some(name), Some(key), None) = (words.next(), words.next(), words.next()) else {
            return Err("expected NAME KEY or NAME sha256:DIGEST".to_owned());
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(is_name) {
            return Err("a name consists of letters, digits and -_.".to_owned());
        }
        let digest = match key.strip_prefix("sha256:") {
            None => sha256(key.as_bytes()),
            Some(digits) => {
                let decoded = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
                let digest = decoded.and_then(|bytes| bytes.try_into().ok());
                digest.ok_or("after sha256: 64 hexadecimal digits are expected")?
            }
        };
        Ok(Self {
            name: name.into(),
            digest,
        })
    }
}

fn sha256(key: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    bytes
}

fn start(digest: &Digest) -> [u8; 4] {
    let [a, b, c, d, ..] = *digest;
    [a, b, c, d]
}

/// The keys of a file or a variable. The last valid ones stay in use while the file is invalid.
#[derive(Debug)]
pub(crate) struct ApiKeySource(ArcSwap<ApiKeys>);

impl ApiKeySource {
    pub(crate) fn fixed(keys: ApiKeys) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(keys)))
    }

    /// Reads a file, and follows its changes until the source is dropped.
    ///
    /// # Errors
    /// If the file can't be read or is invalid.
    pub(crate) fn start(path: PathBuf, runtime: &Handle) -> Result<Arc<Self>, String> {
        let (content, keys) = read(&path)?;
        let source = Self::fixed(keys);
        let followed = Arc::downgrade(&source);
        let name = path.display().to_string();
        let change = move |source: &Self, content: Result<Vec<u8>, String>| match content
            .and_then(|content| parse(&content))
        {
            Ok(keys) => {
                source.0.store(Arc::new(keys));
                tracing::info!("{name}: API keys reloaded");
            }
            Err(error) => tracing::error!("{name}: {error}; keeping the previous API keys"),
        };
        runtime.spawn(followed_file::follow(followed, path, content, change));
        Ok(source)
    }
}

/// The content of a file, and its keys.
///
/// # Errors
/// If the file can't be read or is invalid.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, ApiKeys), String> {
    let read = followed_file::read(path).and_then(|content| {
        let keys = parse(&content)?;
        Ok((content, keys))
    });
    read.map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(content: &[u8]) -> Result<ApiKeys, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    ApiKeys::parse(text)
}

/// Where a request carries its key, and which keys are accepted.
#[derive(Debug)]
pub(crate) struct ApiKeyCheck {
    pub(crate) header: HeaderName,
    /// The name of a query parameter that may hold the key instead of the header.
    pub(crate) query: Option<String>,
    pub(crate) source: Arc<ApiKeySource>,
}

/// A key that was accepted.
pub(super) struct AcceptedKey {
    pub(super) name: Arc<str>,
    /// The target without the key, if that was in the query.
    pub(super) uri: Option<Uri>,
}

impl ApiKeyCheck {
    /// # Errors
    /// A 401 if the request has no accepted key.
    pub(super) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<AcceptedKey, Problem> {
        let mut sent = headers.get_all(&self.header).iter();
        let from_header = sent.next().map(|value| value.as_bytes().to_vec());
        let is_repeated = sent.next().is_some();
        let parameter = self.query.as_deref();
        let (from_query, rest) = match (parameter, uri.query()) {
            (Some(parameter), Some(query)) => take_parameter(query, parameter),
            _ => (Vec::new(), None),
        };
        let key = match (from_header, from_query.as_slice(), is_repeated) {
            (Some(key), [], false) => key,
            (None, [key], _) => key.clone(),
            (None, [], _) => return Err(self.missing()),
            _ => return Err(refused("the request has several API keys")),
        };
        let keys = self.source.0.load();
        let name = keys.find(&key);
        Ok(AcceptedKey {
            name: name.ok_or_else(|| refused("the API key is not accepted"))?,
            uri: (!from_query.is_empty()).then(|| with_query(uri, rest)),
        })
    }

    fn missing(&self) -> Problem {
        let header = &self.header;
        let detail = match &self.query {
            None => format!("the request needs an API key in the header {header}"),
            Some(query) => format!(
                "the request needs an API key in the header {header} or the query parameter {query}"
            ),
        };
        Problem::new(StatusCode::UNAUTHORIZED, "api_key_missing", detail).challenge("ApiKey")
    }
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "api_key_invalid", detail).challenge("ApiKey")
}

/// The values of a parameter, and the query without it.
fn take_parameter(query: &str, name: &str) -> (Vec<Vec<u8>>, Option<String>) {
    let decode = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let (mut values, mut rest) = (Vec::new(), Vec::new());
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key) == name.as_bytes() {
            values.push(decode(value));
        } else {
            rest.push(pair);
        }
    }
    (values, (!rest.is_empty()).then(|| rest.join("&")))
}

fn with_query(uri: &Uri, query: Option<String>) -> Uri {
    let target = match query {
        Some(query) => format!("{}?{query}", uri.path()),
        None => uri.path().to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    // A part of a valid query is valid.
    parts.path_and_query = target.parse().ok().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf s3cret | sha256sum`
    const DIGEST: &str = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";

    #[test]
    fn keys_are_found_as_text_and_as_digest() {
        let text = format!("# keys\nmobile  first-key\n\npartner sha256:{DIGEST}, old old-key\n");
        let keys = ApiKeys::parse(&text).unwrap();
        for (key, name) in [
            ("first-key", Some("mobile")),
            ("s3cret", Some("partner")),
            ("old-key", Some("old")),
            ("first-ke", None),
            (DIGEST, None),
            ("", None),
        ] {
            assert_eq!(keys.find(key.as_bytes()).as_deref(), name, "{key}");
        }
        assert!(!format!("{keys:?}").contains("first-key"));
    }

    #[test]
    fn errors_name_the_line_and_hide_the_key() {
        for (text, line, why) in [
            ("a secret\nb", "line 2", "NAME KEY"),
            ("a secret x", "line 1", "NAME KEY"),
            ("a secret\n\nb secret", "line 3", "also the key of \"a\""),
            ("a sha256:secret", "line 1", "64 hexadecimal"),
            ("a/b secret", "line 1", "letters, digits"),
            ("# none", "", "no key"),
        ] {
            let error = ApiKeys::parse(text).unwrap_err();
            assert!(error.contains(line) && error.contains(why), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_parameter_is_taken_out_of_the_query() {
        let taken = |query| {
            let (values, rest) = take_parameter(query, "key");
            let values: Vec<_> = values
                .iter()
                .map(|v| String::from_utf8_lossy(v).into_owned())
                .collect();
            (values.join("|"), rest.unwrap_or_default())
        };
        assert_eq!(taken("a=1&key=x%2By&b"), ("x+y".into(), "a=1&b".into()));
        assert_eq!(taken("%6bey=x"), ("x".into(), String::new()));
        assert_eq!(taken("key=1&key=2&keys=3"), ("1|2".into(), "keys=3".into()));
        assert_eq!(taken("a=key=1"), (String::new(), "a=key=1".into()));
        let uri: Uri = "/x?key=1".parse().unwrap();
        assert_eq!(with_query(&uri, None), "/x");
    }
}
