use std::sync::Arc;

use waypost_core::ServiceName;

/// Which Service a name means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) namespace: Arc<str>,
    pub(super) service: Arc<str>,
}

impl Place {
    /// By the rules of DNS in a cluster ("DNS for Services and Pods" in Kubernetes' documentation):
    /// `web` is in our own namespace; `web.demo`, `web.demo.svc` and `web.demo.svc.cluster.local`
    /// are in `demo`. `None` if no Service can have such a name.
    pub(super) fn of(name: &ServiceName, own: &Arc<str>, cluster_domain: &str) -> Option<Self> {
        let name = name.as_str();
        let in_cluster = format!(".svc.{cluster_domain}");
        let short = name
            .strip_suffix(&in_cluster)
            .or_else(|| name.strip_suffix(".svc"));
        let (service, namespace) = match (short.unwrap_or(name).split_once('.'), short) {
            (Some((service, namespace)), _) => (service, namespace.into()),
            (None, None) => (name, Arc::clone(own)),
            // "web.svc" is the Service `web` in the namespace `svc`.
            (None, Some(service)) => match name == format!("{service}.svc") {
                true => (service, "svc".into()),
                false => return None,
            },
        };
        (is_label(service) && is_label(&namespace)).then(|| Self {
            service: service.into(),
            namespace,
        })
    }
}

/// RFC 1123, as Kubernetes has it for the names of Services and namespaces.
pub(super) fn is_label(text: &str) -> bool {
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
    fn names_mean_what_dns_in_the_cluster_makes_of_them() {
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
            ("web_1", None),
            ("web.De", None),
        ] {
            let place = Place::of(&name.parse().unwrap(), &own, "cluster.local");
            let place = place.as_ref().map(|p| (&*p.service, &*p.namespace));
            assert_eq!(place, expected, "{name}");
        }
        let long = "a".repeat(64).parse().unwrap();
        assert_eq!(Place::of(&long, &own, "cluster.local"), None);
    }
}
