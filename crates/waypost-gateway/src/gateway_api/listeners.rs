//! The listeners of the Gateways of our class: which ones are served, which routes may attach to them, and
//! for which hosts.

use std::collections::BTreeMap;

use super::certificates::{CertificateSources, ResolvedTls};
use super::conditions::Problem;
use super::objects::{GROUP, Gateway, HttpRoute, Listener, Objects, ParentRef};
use crate::routes::HostPattern;
use crate::server_tls::TlsListener;

/// A listener, and what is wrong with it.
pub(super) struct ServedListener<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) listener: &'a Listener,
    /// `None` for all hosts.
    pub(super) hostname: Option<HostPattern>,
    /// Why it isn't accepted.
    pub(super) problem: Option<Problem>,
    /// Its certificates. `None` if the gateway or the listener has no TLS, or its TLS settings aren't supported.
    pub(super) tls: Option<ResolvedTls>,
    /// Why its TLS settings aren't supported.
    invalid_tls: Option<Problem>,
    /// Kinds of routes that aren't supported.
    invalid_kinds: Option<Problem>,
    /// Whether it is indistinguishable from another listener of the Gateway.
    pub(super) is_conflicted: bool,
}

/// All listeners of a Gateway.
pub(super) fn listeners<'a>(
    gateway: &'a Gateway,
    sources: CertificateSources<'_>,
) -> Vec<ServedListener<'a>> {
    let settings = sources.settings;
    let all = &gateway.spec.listeners;
    let same = |a: &Listener, b: &Listener| {
        (a.port, &a.protocol, &a.hostname) == (b.port, &b.protocol, &b.hostname)
    };
    let served = |listener: &'a Listener| {
        let is_conflicted = all.iter().filter(|other| same(listener, other)).count() > 1;
        let hostname = listener.hostname.as_deref().filter(|name| !name.is_empty());
        let (hostname, mut problem) = match hostname.map(HostPattern::parse).transpose() {
            Ok(hostname) => (hostname, None),
            Err(error) => (None, Some(Problem::new("Invalid", error))),
        };
        if is_conflicted {
            let message = "another listener has the same port, protocol and hostname";
            problem = Some(Problem::new("HostnameConflict", message));
        }
        if listener.port != u32::from(settings.port) {
            let message = format!("this gateway serves port {} only", settings.port);
            problem = Some(Problem::new("PortUnavailable", message));
        }
        let (mut tls, mut invalid_tls) = (None, None);
        if listener.protocol != settings.protocol() {
            let (protocol, supported) = (&listener.protocol, settings.protocol());
            let message = format!(
                "the protocol {protocol} is not supported, only {supported}; a gateway with --gateway-tls or \
                 --tls-cert serves HTTPS, others HTTP"
            );
            problem = Some(Problem::new("UnsupportedProtocol", message));
        } else if settings.has_tls {
            match sources.resolve(gateway, listener.tls.as_ref()) {
                Ok(resolved) => tls = Some(resolved),
                Err(message) => {
                    invalid_tls = Some(Problem::new("Invalid", message));
                    problem = invalid_tls.clone();
                }
            }
        }
        ServedListener {
            gateway,
            listener,
            hostname,
            problem,
            tls,
            invalid_tls,
            invalid_kinds: invalid_kinds(listener),
            is_conflicted,
        }
    };
    all.iter().map(served).collect()
}

fn invalid_kinds(listener: &Listener) -> Option<Problem> {
    let kinds = listener.allowed_routes.kinds.iter();
    let wrong: Vec<_> = kinds
        .filter(|kind| {
            kind.kind != "HTTPRoute" || kind.group.as_deref().is_some_and(|it| it != GROUP)
        })
        .map(|kind| kind.kind.as_str())
        .collect();
    let message = format!("not supported: {}; only HTTPRoute is", wrong.join(", "));
    (!wrong.is_empty()).then(|| Problem::new("InvalidRouteKinds", message))
}

impl ServedListener<'_> {
    /// Whether clients can reach its routes: it is accepted and, with TLS, has a certificate.
    pub(super) fn is_served(&self) -> bool {
        self.problem.is_none() && self.tls.as_ref().is_none_or(ResolvedTls::is_usable)
    }

    /// Why the condition `ResolvedRefs` isn't true.
    pub(super) fn unresolved(&self) -> Option<&Problem> {
        let certificates = self.tls.as_ref().and_then(|tls| tls.unresolved.as_ref());
        (self.invalid_tls.as_ref())
            .or(certificates)
            .or(self.invalid_kinds.as_ref())
    }

    /// What a handshake needs to know; `None` if the listener isn't accepted or has no TLS.
    pub(super) fn tls_listener(&self) -> Option<TlsListener> {
        let tls = self.tls.as_ref().filter(|_| self.problem.is_none())?;
        Some(TlsListener {
            hostname: self.hostname.clone(),
            certificates: tls.certificates.clone(),
        })
    }

    /// Whether HTTPRoutes may attach at all.
    pub(super) fn allows_http_routes(&self) -> bool {
        let kinds = &self.listener.allowed_routes.kinds;
        kinds.is_empty()
            || kinds.iter().any(|kind| {
                kind.kind == "HTTPRoute" && kind.group.as_deref().is_none_or(|it| it == GROUP)
            })
    }

    /// Whether a reference selects this listener. One without `sectionName` and `port` selects all.
    fn is_selected(&self, parent: &ParentRef) -> bool {
        let section = parent.section_name.as_ref();
        section.is_none_or(|name| *name == self.listener.name)
            && parent.port.is_none_or(|port| port == self.listener.port)
    }

    fn allows_namespace(&self, namespace: &str, objects: &Objects) -> bool {
        let own = &self.gateway.metadata.namespace;
        let allowed = &self.listener.allowed_routes.namespaces;
        match allowed.from.as_deref() {
            None | Some("Same") => own == namespace,
            Some("All") => true,
            Some("Selector") => {
                let found = objects
                    .namespaces
                    .iter()
                    .find(|it| it.metadata.name == namespace);
                let empty = BTreeMap::new();
                let labels = found.map_or(&empty, |it| &it.metadata.labels);
                let selector = allowed.selector.as_ref();
                found.is_some() && selector.is_some_and(|selector| selector.matches(labels))
            }
            Some(_) => false,
        }
    }

    /// The hosts for which a route attaches. A listener with a hostname limits those of the route.
    fn hosts(&self, route: &HttpRoute) -> Vec<Option<HostPattern>> {
        let hostnames = &route.spec.hostnames;
        if hostnames.is_empty() {
            return vec![self.hostname.clone()];
        }
        let hosts = hostnames
            .iter()
            .filter_map(|host| HostPattern::parse(host).ok());
        hosts
            .filter_map(|host| match &self.hostname {
                None => Some(Some(host)),
                Some(own) => own.intersection(&host).map(Some),
            })
            .collect()
    }
}

/// A listener to which a route is attached, by its position, and the hosts.
pub(super) type Attachment = (usize, Vec<Option<HostPattern>>);

/// The listeners of a Gateway to which a reference attaches a route.
///
/// # Errors
/// Why there is none.
pub(super) fn attach(
    route: &HttpRoute,
    parent: &ParentRef,
    of_gateway: &[(usize, &ServedListener<'_>)],
    objects: &Objects,
) -> Result<Vec<Attachment>, Problem> {
    let mut left: Vec<_> = of_gateway
        .iter()
        .filter(|(_, listener)| listener.is_selected(parent))
        .collect();
    if left.is_empty() {
        let message = "the Gateway has no listener with this sectionName and port";
        return Err(Problem::new("NoMatchingParent", message));
    }
    left.retain(|(_, listener)| listener.problem.is_none());
    if left.is_empty() {
        return Err(Problem::new(
            "Pending",
            "the Gateway's listener is not accepted",
        ));
    }
    let namespace = &route.metadata.namespace;
    left.retain(|(_, listener)| {
        listener.allows_http_routes() && listener.allows_namespace(namespace, objects)
    });
    if left.is_empty() {
        let message = format!("no listener allows HTTPRoutes of namespace {namespace}");
        return Err(Problem::new("NotAllowedByListeners", message));
    }
    let attachments = left
        .into_iter()
        .map(|(at, listener)| (*at, listener.hosts(route)));
    let attachments: Vec<_> = attachments.filter(|(_, hosts)| !hosts.is_empty()).collect();
    if attachments.is_empty() {
        let message = "no hostname of the route matches that of a listener";
        return Err(Problem::new("NoMatchingListenerHostname", message));
    }
    Ok(attachments)
}
