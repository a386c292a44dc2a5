//! The options of lists and watches.

use std::str::FromStr;
use std::time::Duration;

use url::form_urlencoded;

use crate::http::status::Status;
use crate::store::selector::Selector;

/// The options in the query of a list or a watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub is_watch: bool,
    pub selector: Selector,
    /// `resourceVersion`; None if it is absent or empty.
    pub revision: Option<u64>,
    /// The largest number of items of a list.
    pub limit: Option<usize>,
    /// Whether the list continues another one.
    pub is_continued: bool,
    /// Whether a watch begins with all objects and a bookmark after them (WatchList).
    pub sends_initial_events: bool,
    /// Whether `resourceVersionMatch` is `NotOlderThan`.
    pub is_not_older_than: bool,
    pub allows_bookmarks: bool,
    /// How long a watch lasts.
    pub timeout: Option<Duration>,
}

impl Options {
    /// Parses a query. Options and values that the fake API server does not support are errors.
    pub(super) fn parse(query: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        let (mut labels, mut fields) = (String::new(), String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("watch", "true") => options.is_watch = true,
                ("labelSelector", _) => labels = value.into_owned(),
                ("fieldSelector", _) => fields = value.into_owned(),
                ("resourceVersion", "") => {}
                ("resourceVersion", _) => options.revision = Some(number(&name, &value)?),
                ("limit", _) => options.limit = Some(number(&name, &value)?),
                ("continue", _) => options.is_continued = true,
                ("sendInitialEvents", "true") => options.sends_initial_events = true,
                ("resourceVersionMatch", "NotOlderThan") => options.is_not_older_than = true,
                ("allowWatchBookmarks", "true") => options.allows_bookmarks = true,
                ("timeoutSeconds", _) => {
                    options.timeout = Some(Duration::from_secs(number(&name, &value)?));
                }
                _ => return Err(Status::unsupported(&format!("the option {name}={value}"))),
            }
        }
        let unsupported = || Status::unsupported(&format!("the selectors {labels:?} {fields:?}"));
        options.selector = Selector::parse(&labels, &fields).ok_or_else(unsupported)?;
        Ok(options)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, Status> {
    let invalid = |_| Status::bad_request(format!("{name}: Invalid value: {value:?}"));
    value.parse().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_supported_are_refused() {
        for query in [
            "dryRun=All",
            "fieldSelector=spec.nodeName%3Da",
            "resourceVersionMatch=Exact",
            "sendInitialEvents=false",
        ] {
            let refused = Options::parse(query).unwrap_err();
            assert_eq!(refused.code, 501, "{query}");
        }
        assert_eq!(Options::parse("resourceVersion=a").unwrap_err().code, 400);
    }
}
