//! Selects instances by tag, version and metadata.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use waypost_core::Instance;

/// Selects instances of a service: those that have all of the given tags, the version and the metadata.
/// An empty selector accepts every instance.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use waypost::{Instance, ServiceName};
/// # use waypost::provider::MemoryProvider;
/// use waypost::{Selector, ServiceDiscoveryClient};
///
/// # let memory = MemoryProvider::new();
/// # for (port, version) in [(80, "1.0.0"), (81, "2.0.0")] {
/// #     let instance = Instance::builder(ServiceName::new("auth")?, "10.0.0.7".parse()?, port);
/// #     memory.insert(instance.version(version).tag("eu").build()?);
/// # }
/// # let client = ServiceDiscoveryClient::builder().provider(memory).build()?;
/// let canary = Selector::new().tag("eu").version("2.0.0");
/// let url = client.with_selector(canary).service_url("auth", "/users").await?;
/// assert_eq!(url, "http://10.0.0.7:81/users");
///
/// let error = client.with_selector(Selector::new().tag("us")).pick("auth").await.unwrap_err();
/// assert!(error.to_string().contains(r#"has tag "us"; its 2 instances have tag "eu""#));
/// # Ok::<(), waypost::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    tags: BTreeSet<Box<str>>,
    version: Option<Box<str>>,
    metadata: BTreeMap<Box<str>, Box<str>>,
}

/// How many values an error lists.
const LISTED: usize = 10;

impl Selector {
    /// Accepts every instance.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts only instances that have this tag, in addition to the conditions so far.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// Accepts only instances of exactly this version. A second call replaces the first.
    #[must_use]
    pub fn version(mut self, version: impl Into<Box<str>>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Accepts only instances whose metadata has this value for this key, in addition to the conditions
    /// so far. A second call with the same key replaces the first.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Whether it accepts every instance.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.version.is_none() && self.metadata.is_empty()
    }

    /// Whether it accepts this instance.
    pub fn matches(&self, instance: &Instance) -> bool {
        let has_version = |version: &str| instance.version() == Some(version);
        self.tags.iter().all(|tag| instance.has_tag(tag))
            && self.version.as_deref().is_none_or(has_version)
            && (self.metadata.iter()).all(|(key, value)| instance.meta(key) == Some(&**value))
    }

    /// The values that these instances have for the properties in the conditions, for an error message.
    pub(crate) fn describe_available<'a>(
        &self,
        instances: impl ExactSizeIterator<Item = &'a Arc<Instance>> + Clone,
    ) -> String {
        let mut parts = Vec::new();
        if !self.tags.is_empty() {
            let tags = instances.clone().flat_map(|instance| instance.tags());
            parts.push(listed("tag", tags.collect()));
        }
        if self.version.is_some() {
            let versions = instances.clone().filter_map(|instance| instance.version());
            parts.push(listed("version", versions.collect()));
        }
        for key in self.metadata.keys() {
            let values = instances.clone().filter_map(|instance| instance.meta(key));
            parts.push(listed(&format!("metadata {key:?}"), values.collect()));
        }
        let (subject, verb) = match instances.len() {
            1 => ("its only instance".to_owned(), "has"),
            count => (format!("its {count} instances"), "have"),
        };
        format!("{subject} {verb} {}", parts.join(", "))
    }
}

/// For example `tags "a", "b"`, or `no tags`. Values are escaped, since they come from a registry.
fn listed(kind: &str, values: BTreeSet<&str>) -> String {
    let some: Vec<_> = (values.iter().take(LISTED))
        .map(|v| format!("{v:?}"))
        .collect();
    let some = some.join(", ");
    match values.len() {
        0 => format!("no {kind}"),
        1 => format!("{kind} {some}"),
        count if count <= LISTED => format!("{kind}s {some}"),
        count => format!("{kind}s {some} and {} more", count - LISTED),
    }
}

/// For example `tag "eu", version "2.0.0", metadata "track" = "canary"`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = self.tags.iter().map(|tag| format!("tag {tag:?}"));
        let version = (self.version.iter()).map(|version| format!("version {version:?}"));
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|(key, value)| format!("metadata {key:?} = {value:?}"));
        let conditions: Vec<_> = tags.chain(version).chain(metadata).collect();
        if conditions.is_empty() {
            return f.write_str("any property");
        }
        f.write_str(&conditions.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::ServiceName;

    use super::*;

    fn instance(
        edit: impl FnOnce(waypost_core::InstanceBuilder) -> waypost_core::InstanceBuilder,
    ) -> Arc<Instance> {
        let service = ServiceName::new("auth").unwrap();
        let builder = Instance::builder(service, "10.0.0.1".parse().unwrap(), 80);
        Arc::new(edit(builder).build().unwrap())
    }

    #[test]
    fn every_condition_has_to_be_met() {
        let both = instance(|i| i.tag("a").tag("b").version("2").meta("track", "canary"));
        let selector = Selector::new()
            .tag("a")
            .tag("b")
            .version("2")
            .metadata("track", "canary");
        assert!(selector.matches(&both));
        for other in [
            instance(|i| i.tag("a").version("2").meta("track", "canary")),
            instance(|i| i.tag("a").tag("b").version("2.0").meta("track", "canary")),
            instance(|i| i.tag("a").tag("b").meta("track", "canary")),
            instance(|i| i.tag("a").tag("b").version("2").meta("track", "stable")),
        ] {
            assert!(!selector.matches(&other), "{other:?}");
            assert!(Selector::new().matches(&other));
        }
    }

    #[test]
    fn a_selector_without_conditions_is_empty() {
        assert!(Selector::new().is_empty());
        for selector in [
            Selector::new().tag("a"),
            Selector::new().version("1"),
            Selector::new().metadata("a", "b"),
        ] {
            assert!(!selector.is_empty(), "{selector}");
        }
    }

    #[test]
    fn the_description_says_what_there_is() {
        let many: Vec<_> = (10..23)
            .map(|n| instance(|i| i.tag(format!("t{n}"))))
            .collect();
        let available =
            |selector: Selector, of: &[Arc<Instance>]| selector.describe_available(of.iter());
        assert_eq!(
            available(Selector::new().tag("x").version("1"), &many),
            "its 13 instances have tags \"t10\", \"t11\", \"t12\", \"t13\", \"t14\", \"t15\", \"t16\", \"t17\", \
             \"t18\", \"t19\" and 3 more, no version"
        );
        assert_eq!(
            available(Selector::new().tag("x"), &many[..10]),
            "its 10 instances have tags \"t10\", \"t11\", \"t12\", \"t13\", \"t14\", \"t15\", \"t16\", \"t17\", \
             \"t18\", \"t19\""
        );
        let one = [instance(|i| i.meta("track", "a\u{1b}[31m"))];
        assert_eq!(
            available(Selector::new().metadata("track", "b"), &one),
            "its only instance has metadata \"track\" \"a\\u{1b}[31m\""
        );
        let wanted = Selector::new().metadata("track", "b").tag("x").version("1");
        assert_eq!(
            wanted.to_string(),
            "tag \"x\", version \"1\", metadata \"track\" = \"b\""
        );
    }
}
