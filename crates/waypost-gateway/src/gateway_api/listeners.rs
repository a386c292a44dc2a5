//! The listeners of the Gateways of our class: which ones are served, which routes may attach to them, and
//! for which hosts.

use std::collections::BTreeMap;

use super::Settings;
use super::conditions::Problem;
use super::objects::{GROUP, Gateway, HttpRoute, Listener, ListenerTls, Objects, ParentRef};
use crate::routes::HostPattern;

/// The TLS option of a listener that says where its certificates come from.
const CERTIFICATES_OPTION: &str = "waypost.dev/certificates";

/// A listener, and what is wrong with it.
pub(super) struct ServedListener<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) listener: &'a Listener,
    /// `None` for all hosts.
    pub(super) hostname: Option<HostPattern>,
    /// Why it isn't served.
    pub(super) problem: Option<Problem>,
    /// Why its TLS settings are refused, for the condition `ResolvedRefs`.
    pub(super) invalid_tls: Option<Problem>,
    /// Kinds of routes that aren't supported.
    pub(super) invalid_kinds: Option<Problem>,
    /// Whether it is indistinguishable from another listener of the Gateway.
    pub(super) is_conflicted: bool,
}

/// All listeners of a Gateway.
pub(super) fn listeners<'a>(gateway: &'a Gateway, settings: &Settings) -> Vec<ServedListener<'a>> {
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
        let mut invalid_tls = None;
        if listener.protocol != settings.protocol() {
            let (protocol, supported) = (&listener.protocol, settings.protocol());
            let message = format!(
                "the protocol {protocol} is not supported, only {supported}; a gateway with --tls-cert serves \
                 HTTPS, others HTTP"
            );
            problem = Some(Problem::new("UnsupportedProtocol", message));
        } else if settings.has_tls
            && let Err((reason, message)) = check_tls(listener.tls.as_ref())
        {
            invalid_tls = Some(Problem::new(reason, message));
            problem = Some(Problem::new("Invalid", message));
        }
        ServedListener {
            gateway,
            listener,
            hostname,
            problem,
            invalid_tls,
            invalid_kinds: invalid_kinds(listener),
            is_conflicted,
        }
    };
    all.iter().map(served).collect()
}

/// Checks the TLS settings of a listener. The certificates must come from the gateway's files.
///
/// # Errors
/// The reason for `ResolvedRefs`, and what is wrong.
fn check_tls(tls: Option<&ListenerTls>) -> Result<(), (&'static str, &'static str)> {
    const FROM_FILES: &str = "the gateway reads its certificates from files (--tls-cert), so a listener must have \
        the option waypost.dev/certificates: files instead of certificateRefs";
    let default = ListenerTls::default();
    let tls = tls.unwrap_or(&default);
    if tls.mode.as_deref().is_some_and(|mode| mode != "Terminate") {
        Err(("Invalid", "only the TLS mode Terminate is supported"))
    } else if tls.frontend_validation.is_some() {
        Err(("Invalid", "frontendValidation is not supported"))
    } else if !tls.certificate_refs.is_empty() {
        Err(("InvalidCertificateRef", FROM_FILES))
    } else if tls
        .options
        .get(CERTIFICATES_OPTION)
        .is_none_or(|value| value != "files")
    {
        Err(("Invalid", FROM_FILES))
    } else if tls.options.len() > 1 {
        let message = "the only TLS option is waypost.dev/certificates";
        Err(("Invalid", message))
    } else {
        Ok(())
    }
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
