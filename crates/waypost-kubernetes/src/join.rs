//! What the slices and the Service say together: pure functions from them to instances.

use std::collections::HashMap;
use std::sync::Arc;

use waypost_core::{
    Health, Host, Instance, InstanceBuilder, InstanceId, Invalid, ServiceName, Weight,
};

use super::ports::Ports;
use super::views::Setup;
use super::wire::{Conditions, Endpoint, Labels, Metadata, Service, Slice};

/// What is the same for all instances of a service.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// The name that was asked for.
    pub(super) name: ServiceName,
    pub(super) namespace: Arc<str>,
    pub(super) setup: Arc<Setup>,
    pub(super) service: Option<Arc<Service>>,
    /// Whether the hints count: only if every ready endpoint has one ("Topology Aware Routing").
    pub(super) hinted: bool,
    /// What we can't see, in words for the metadata.
    pub(super) degraded: Option<&'static str>,
}

/// The metadata key under which an instance says what could not be read.
const DEGRADED: &str = "degraded";

/// Annotations of this prefix are for us: `waypost.dev/weight`, `…/version`, `…/tags` (with commas),
/// `…/scheme`, `…/path`, `…/port`, `…/id` where a slice has one endpoint and, as metadata,
/// `…/meta.<key>`. Those of a slice outweigh those of the Service.
pub(super) const OURS: &str = "waypost.dev/";

/// The instances of one slice, in its order. Those of `before` that are still true are used again.
/// Those of a slice that is overdue are critical, whatever it says.
pub(super) fn instances(
    context: &Context,
    slice: &Slice,
    is_overdue: bool,
    before: Option<(&Slice, &[Option<Arc<Instance>>])>,
) -> Vec<Option<Arc<Instance>>> {
    let mut common = Common::new(context, slice);
    common.is_overdue = is_overdue;
    let reusable = before.filter(|(earlier, _)| {
        earlier.ports == slice.ports
            && earlier.metadata.labels == slice.metadata.labels
            && earlier.metadata.annotations == slice.metadata.annotations
    });
    let known: HashMap<&Endpoint, &Option<Arc<Instance>>> = reusable
        .map(|(earlier, instances)| earlier.endpoints().iter().zip(instances).collect())
        .unwrap_or_default();
    let instance = |endpoint: &Endpoint| match known.get(endpoint) {
        Some(instance) => (*instance).clone(),
        None => match common.instance(endpoint) {
            Ok(instance) => instance.map(Arc::new),
            Err(why) => {
                let slice = &*slice.metadata.name;
                tracing::warn!(slice, %why, "an endpoint can't be used");
                None
            }
        },
    };
    slice.endpoints().iter().map(instance).collect()
}

/// The one instance that an `ExternalName` Service stands for.
pub(super) fn external(
    context: &Context,
    service: &Service,
    target: &str,
) -> Option<Arc<Instance>> {
    by_name(context, service, target.trim_end_matches('.'))
}

/// The Service's own name, where its slices may not be read: the cluster's DNS and its proxies find
/// the endpoints then.
pub(super) fn by_cluster_dns(context: &Context, service: &Service) -> Option<Arc<Instance>> {
    let Context {
        namespace, setup, ..
    } = context;
    let name = &service.metadata.name;
    let domain = &setup.cluster_domain;
    by_name(
        context,
        service,
        &format!("{name}.{namespace}.svc.{domain}"),
    )
}

fn by_name(context: &Context, service: &Service, host: &str) -> Option<Arc<Instance>> {
    let nothing = Slice::default();
    let mut common = Common::new(context, &nothing);
    common.ports = Ports::of_service(service, common.wanted.as_deref());
    let made = host.parse().and_then(|host| {
        let builder = common.builder(host)?;
        common.finished(builder)
    });
    match made {
        Ok(instance) => Some(Arc::new(instance)),
        Err(why) => {
            tracing::warn!(service = %context.name, %why, "its name can't be used");
            None
        }
    }
}

/// How an endpoint is. Of what isn't said, `ready` and `serving` count as true and `terminating` as
/// false (`EndpointConditions` of the API, and kube-proxy).
pub(super) fn health(conditions: Option<Conditions>) -> Health {
    let Conditions {
        ready,
        serving,
        terminating,
    } = conditions.unwrap_or_default();
    if ready.unwrap_or(true) {
        Health::Passing
    } else if terminating == Some(true) && serving.unwrap_or(true) {
        Health::Draining
    } else {
        Health::Critical
    }
}

/// Whether the endpoint takes part in the question if all have hints.
pub(super) fn is_unhinted(endpoint: &Endpoint) -> bool {
    health(endpoint.conditions).takes_traffic() && hint(endpoint).is_none()
}

/// The zone that is to use the endpoint.
fn hint(endpoint: &Endpoint) -> Option<&str> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_deref()?;
    let own = zones
        .iter()
        .find(|zone| Some(&zone.name) == endpoint.zone.as_ref());
    own.or(zones.first()).map(|zone| &*zone.name)
}

/// What the endpoints of a slice have in common.
struct Common<'a> {
    context: &'a Context,
    ports: Ports,
    wanted: Option<Box<str>>,
    labels: Labels,
    annotations: Labels,
    is_alone: bool,
    is_overdue: bool,
}

impl<'a> Common<'a> {
    fn new(context: &'a Context, slice: &Slice) -> Self {
        let nothing = Metadata::default();
        let service = context.service.as_deref();
        let sources = [service.map_or(&nothing, |s| &s.metadata), &slice.metadata];
        let mut labels = Labels::new();
        let mut annotations = Labels::new();
        for metadata in sources {
            labels.extend(own_labels(metadata));
            let all = metadata.annotations.iter().flatten();
            annotations.extend(all.map(|(k, v)| (k.clone(), v.clone())));
        }
        let port = annotations.get(format!("{OURS}port").as_str());
        // Who says a scheme calls its port so, too.
        let scheme = annotations.get(format!("{OURS}scheme").as_str());
        let wanted = port.or(context.setup.port.as_ref()).or(scheme).cloned();
        Self {
            ports: Ports::of(slice, service, wanted.as_deref()),
            context,
            wanted,
            labels,
            annotations,
            is_alone: slice.endpoints().len() == 1,
            is_overdue: false,
        }
    }

    /// The id that the one endpoint of a slice was given.
    fn own_id(&self) -> Option<InstanceId> {
        self.ours("id")
            .filter(|_| self.is_alone)
            .map(InstanceId::from)
    }

    fn ours(&self, key: &str) -> Option<&str> {
        Some(self.annotations.get(format!("{OURS}{key}").as_str())?)
    }

    /// `None` for an endpoint without any address.
    fn instance(&self, endpoint: &Endpoint) -> Result<Option<Instance>, Invalid> {
        let addresses = endpoint.addresses.as_deref().unwrap_or_default();
        // Several are for the same endpoint, and the order means nothing.
        let Some(address) = addresses.first() else {
            return Ok(None);
        };
        let mut builder = self.builder(host(address)?)?.health(match self.is_overdue {
            true => Health::Critical,
            false => health(endpoint.conditions),
        });
        if let Some(id) = self.own_id().or_else(|| self.target(endpoint)) {
            builder = builder.id(id);
        }
        let zone = hint(endpoint).filter(|_| self.context.hinted);
        if let Some(zone) = zone.or(endpoint.zone.as_deref()) {
            builder = builder.zone(zone);
        }
        let target = endpoint.target_ref.as_ref();
        let kind = target.and_then(|target| target.kind.as_deref());
        let facts = [
            (
                "pod",
                target
                    .filter(|_| kind == Some("Pod"))
                    .and_then(|t| t.name.as_deref()),
            ),
            ("node", endpoint.node_name.as_deref()),
            ("hostname", endpoint.hostname.as_deref()),
            ("zone", endpoint.zone.as_deref()),
        ];
        for (key, value) in facts {
            if let Some(value) = value {
                builder = builder.meta(key, value);
            }
        }
        self.finished(builder).map(Some)
    }

    /// Who the endpoint is, however its address and its slice change. A name belongs to one pod at
    /// a time.
    fn target(&self, endpoint: &Endpoint) -> Option<InstanceId> {
        let target = endpoint.target_ref.as_ref()?;
        let name = target.name.as_deref()?;
        let namespace = target.namespace.as_deref();
        let prefix = match target.kind.as_deref()? {
            "Pod" => String::new(),
            kind => format!("{}/", kind.to_ascii_lowercase()),
        };
        Some(match namespace.filter(|n| **n != *self.context.namespace) {
            None => format!("{prefix}{name}").into(),
            Some(namespace) => format!("{prefix}{namespace}/{name}").into(),
        })
    }

    fn builder(&self, host: Host) -> Result<InstanceBuilder, Invalid> {
        let Context {
            name, namespace, ..
        } = self.context;
        let mut builder = Instance::builder(name.clone(), host, self.ports.main)
            .scheme(&*self.ports.scheme)
            .metadata(self.labels.iter().map(|(k, v)| (k.clone(), v.clone())))
            .meta("namespace", &**namespace);
        if let Some(protocol) = &self.ports.app_protocol {
            builder = builder.meta("app_protocol", protocol.clone());
        }
        for (name, number) in &self.ports.named {
            builder = builder.named_port(name.clone(), *number);
        }
        let version = self.labels.get("app.kubernetes.io/version");
        if let Some(version) = self.ours("version").or(version.map(|v| &**v)) {
            builder = builder.version(version);
        }
        if let Some(weight) = self.ours("weight") {
            builder = builder.weight(weight.parse::<Weight>()?);
        }
        if let Some(tags) = self.ours("tags") {
            let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            builder = builder.tags(tags);
        }
        if let Some(scheme) = self.ours("scheme") {
            builder = builder.scheme(scheme);
        }
        if let Some(path) = self.ours("path") {
            builder = builder.path_prefix(path);
        }
        Ok(builder)
    }

    fn finished(&self, mut builder: InstanceBuilder) -> Result<Instance, Invalid> {
        let meta = format!("{OURS}meta.");
        let chosen = &self.context.setup.annotations;
        for (key, value) in &self.annotations {
            match key.strip_prefix(meta.as_str()) {
                Some(key) if !key.is_empty() => builder = builder.meta(key, value.clone()),
                _ if chosen.contains(key) => builder = builder.meta(key.clone(), value.clone()),
                _ => {}
            }
        }
        if let Some(degraded) = self.context.degraded {
            builder = builder.meta(DEGRADED, degraded);
        }
        builder.build()
    }
}

/// Where an endpoint is. Slices from before Kubernetes was strict may have IPv4 addresses with leading
/// zeros, which there are decimal as ever, but octal to others.
fn host(address: &str) -> Result<Host, Invalid> {
    let parts: Vec<u8> = address.split('.').flat_map(str::parse).collect();
    match <[u8; 4]>::try_from(parts) {
        Ok(parts) if address.split('.').count() == 4 => Ok(Host::Ip(parts.into())),
        _ => address.parse(),
    }
}

/// The labels that people gave: those of a slice are its Service's, and some that are for
/// Kubernetes itself.
fn own_labels(metadata: &Metadata) -> impl Iterator<Item = (Box<str>, Box<str>)> {
    const INTERNAL: [&str; 3] = [
        "kubernetes.io/",
        "endpointslice.kubernetes.io/",
        "service.kubernetes.io/",
    ];
    let all = metadata.labels.iter().flatten();
    all.filter(|(key, _)| !INTERNAL.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_of_an_endpoint_counts_as_good() {
        let yes = Some(true);
        let no = Some(false);
        for (ready, serving, terminating, expected) in [
            (yes, yes, no, Health::Passing),
            // Of Services that publish addresses that are not ready.
            (yes, yes, yes, Health::Passing),
            (None, None, None, Health::Passing),
            (None, yes, no, Health::Passing),
            (None, yes, yes, Health::Passing),
            (no, yes, yes, Health::Draining),
            (no, None, yes, Health::Draining),
            (no, no, yes, Health::Critical),
            (no, no, no, Health::Critical),
            (no, yes, no, Health::Critical),
        ] {
            let conditions = Conditions {
                ready,
                serving,
                terminating,
            };
            assert_eq!(health(Some(conditions)), expected, "{conditions:?}");
        }
        assert_eq!(health(None), Health::Passing);
    }

    #[test]
    fn an_endpoint_is_who_it_is_for_otherwise_its_address() {
        let setup = Setup {
            namespace: "demo".into(),
            cluster_domain: "cluster.local".into(),
            annotations: Vec::new(),
            port: None,
        };
        let context = Context {
            name: "web".parse().unwrap(),
            namespace: "demo".into(),
            setup: Arc::new(setup),
            service: None,
            hinted: false,
            degraded: None,
        };
        for (target, expected) in [
            (
                r#"{"kind": "Pod", "name": "web-1", "namespace": "demo"}"#,
                "web-1",
            ),
            (r#"{"kind": "Pod", "name": "web-1"}"#, "web-1"),
            (
                r#"{"kind": "Pod", "name": "web-1", "namespace": "far"}"#,
                "far/web-1",
            ),
            (r#"{"kind": "Node", "name": "n1"}"#, "node/n1"),
            (r#"{"kind": "Pod"}"#, "web@10.0.0.1:80"),
            ("null", "web@10.0.0.1:80"),
        ] {
            let text = format!(
                r#"{{"endpoints": [{{"addresses": ["10.0.0.1"], "targetRef": {target}}}]}}"#
            );
            let slice: Slice = serde_json::from_str(&text).unwrap();
            let made = instances(&context, &slice, false, None);
            let made = made[0].as_ref().unwrap();
            assert_eq!(made.id().as_str(), expected, "{target}");
        }
        // One that can't be used takes no other with it.
        let text = r#"{"endpoints": [{"addresses": ["a b"]}, {"addresses": []}, {"addresses": ["010.0.0.02"]}]}"#;
        let slice: Slice = serde_json::from_str(text).unwrap();
        let made = instances(&context, &slice, false, None);
        let hosts: Vec<_> = made.iter().flatten().map(|i| i.host().bare()).collect();
        assert_eq!(hosts, ["10.0.0.2"]);
    }
}
