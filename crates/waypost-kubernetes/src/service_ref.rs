//! Which Service a service name refers to.

use std::sync::Arc;

use waypost_core::ServiceName;

use crate::object_key::ObjectKey;

/// The port that a name chooses: `admin` in `web_admin` and `web_admin.demo`. Names of Services have no
/// underscore.
pub(crate) fn port_of(name: &ServiceName) -> Option<&str> {
    let label = name.as_str().split('.').next()?;
    label.split_once('_').map(|(_, port)| port)
}

/// The Service that a name refers to, as cluster DNS resolves it ("DNS for Services and Pods" in the
/// Kubernetes documentation): `web` is in `default_namespace`; `web.demo`, `web.demo.svc` and
/// `web.demo.svc.cluster.local` are in `demo`. `web_admin.demo` is the same Service at its port
/// `admin` ([`port_of`]). `None` if no Service can have such a name.
pub(crate) fn resolve_service(
    name: &ServiceName,
    default_namespace: &Arc<str>,
    cluster_domain: &str,
) -> Option<ObjectKey> {
    let name = name.as_str();
    let in_cluster = format!(".svc.{cluster_domain}");
    let short = name
        .strip_suffix(&in_cluster)
        .or_else(|| name.strip_suffix(".svc"));
    let (service, namespace): (_, Arc<str>) = match (short.unwrap_or(name).split_once('.'), short) {
        (Some((service, namespace)), _) => (service, namespace.into()),
        (None, None) => (name, Arc::clone(default_namespace)),
        // "web.svc" is the Service `web` in the namespace `svc`.
        (None, Some(service)) if name == format!("{service}.svc") => (service, "svc".into()),
        (None, Some(_)) => return None,
    };
    let (service, port) = match service.split_once('_') {
        Some((service, port)) => (service, Some(port)),
        None => (service, None),
    };
    let is_valid = is_dns_label(service) && is_dns_label(&namespace);
    (is_valid && port.is_none_or(is_dns_label)).then(|| ObjectKey {
        name: service.into(),
        namespace,
    })
}

/// Whether `text` is an RFC 1123 label, as Kubernetes requires for names of Services and namespaces.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_as_in_cluster_dns() {
        let own: Arc<str> = "shop".into();
        for (name, expected) in [
            ("web", Some(("web", "shop"))),
            ("web.demo", Some(("web", "demo"))),
            ("web.demo.svc", Some(("web", "demo"))),
            ("web.demo.svc.cluster.local", Some(("web", "demo"))),
            ("web.svc", Some(("web", "svc"))),
            ("1-up", Some(("1-up", "shop"))),
            ("web.svc.cluster.local", None),
            ("web.demo.svc.elsewhere", None),
            ("web.demo.example", None),
            ("Web", None),
            ("web_admin", Some(("web", "shop"))),
            ("web_admin.demo.svc", Some(("web", "demo"))),
            ("web_a_b", None),
            ("web_Admin", None),
            ("web.De", None),
        ] {
            let resolved = resolve_service(&name.parse().unwrap(), &own, "cluster.local");
            let resolved = resolved.as_ref().map(|r| (&*r.name, &*r.namespace));
            assert_eq!(resolved, expected, "{name}");
        }
        let port = |name: &str| port_of(&name.parse().unwrap()).map(str::to_owned);
        assert_eq!(port("web_admin.demo").as_deref(), Some("admin"));
        assert_eq!(port("web.demo"), None);
        let long = "a".repeat(64).parse().unwrap();
        assert_eq!(resolve_service(&long, &own, "cluster.local"), None);
    }
}
