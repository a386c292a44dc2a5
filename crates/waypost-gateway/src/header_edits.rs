//! Changes to headers that are configured for a route.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::headers;

/// Headers to remove, to replace and to add, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HeaderEdits {
    pub(crate) remove: Vec<HeaderName>,
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    pub(crate) add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Adds other edits, which are applied after these.
    pub(crate) fn extend(&mut self, other: Self) {
        self.remove.extend(other.remove);
        self.set.extend(other.set);
        self.add.extend(other.add);
    }

    /// Removes headers that look like one of `remove` to programs that can't distinguish `-` from `_`,
    /// such as those behind CGI or WSGI.
    pub(crate) fn remove_lookalikes(&self, headers: &mut HeaderMap) {
        let is_alike = |a: &HeaderName, b: &HeaderName| {
            let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
            let (a, b) = (a.as_str().bytes().map(plain), b.as_str().bytes().map(plain));
            a.eq(b)
        };
        headers::remove_where(headers, |name| {
            self.remove.iter().any(|one| is_alike(one, name))
        });
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}
