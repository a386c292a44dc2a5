//! Routes from the tags or metadata of a service's instances: `waypost.path=/billing`,
//! `waypost.host=billing.example` and `waypost.strip=true`.

use waypost::Instance;
use waypost::snapshot::Snapshot;

use super::pattern::{HostPattern, PathPattern};

/// The route that the tags of a service's instances define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaggedRoute {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) path: PathPattern,
    /// Whether the service doesn't see the path.
    pub(super) strips: bool,
}

/// The route that the instances of a service define. If they differ, as during an update, that of the
/// instance with the smallest id is used.
///
/// # Errors
/// What is wrong with it.
pub(super) fn tagged_route(snapshot: &Snapshot) -> Result<Option<TaggedRoute>, String> {
    let defining = snapshot
        .instances()
        .filter(|instance| {
            value(instance, "waypost.path").is_some() || value(instance, "waypost.host").is_some()
        })
        .min_by(|a, b| a.id().as_str().cmp(b.id().as_str()));
    let Some(instance) = defining else {
        return Ok(None);
    };
    let path = value(instance, "waypost.path").unwrap_or("/");
    let hosts = value(instance, "waypost.host").into_iter();
    let hosts = hosts.flat_map(|hosts| hosts.split(','));
    Ok(Some(TaggedRoute {
        hosts: hosts
            .map(|host| HostPattern::parse(host.trim()))
            .collect::<Result<_, _>>()?,
        path: PathPattern::prefix(path)?,
        strips: value(instance, "waypost.strip") == Some("true"),
    }))
}

/// The value of a key in the metadata, or in a tag `key=value`.
fn value<'a>(instance: &'a Instance, key: &str) -> Option<&'a str> {
    let in_tags = || {
        instance
            .tags()
            .find_map(|tag| tag.strip_prefix(key)?.strip_prefix('='))
    };
    instance.meta(key).or_else(in_tags)
}
