//! Maps EndpointSlices and Services to instances. Apart from warnings in the log, these are pure
//! functions.

use std::collections::HashMap;
use std::sync::Arc;

use waypost_core::{
    Health, Host, Instance, InstanceBuilder, InstanceId, Invalid, ServiceName, Weight,
};

use crate::options::DiscoveryOptions;
use crate::ports::{PortChoice, Ports};
use crate::resources::{
    Endpoint, EndpointConditions, EndpointSlice, ObjectMeta, Service, StringMap,
};

/// The data that all instances of a service share.
#[derive(Clone, Debug)]
pub(crate) struct MappingContext {
    /// The name that was looked up.
    pub(crate) name: ServiceName,
    pub(crate) namespace: Arc<str>,
    pub(crate) options: Arc<DiscoveryOptions>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) port: PortChoice,
    /// The port in the name, if there is one; no other port is called.
    pub(crate) named_port: Option<Box<str>>,
    /// Whether zone hints apply, which they do if every ready endpoint has one ("Topology Aware
    /// Routing" in the Kubernetes documentation).
    pub(crate) use_hints: bool,
    /// What could not be read, for the metadata.
    pub(crate) degraded: Option<&'static str>,
}

impl MappingContext {
    /// Chooses the port to call, with these slices of the service.
    pub(crate) fn choose_port<'a>(
        &'a self,
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    ) -> PortChoice {
        let service = self.service.as_deref();
        if let Some(name) = &self.named_port {
            return PortChoice::named(service, name);
        }
        let annotation = |key: &str| {
            let key = format!("{ANNOTATION_PREFIX}{key}");
            service.and_then(|service| service.metadata.annotation(&key))
        };
        let preferred = annotation("port")
            .or(self.options.port.as_deref())
            // A port is usually named after its scheme.
            .or_else(|| annotation("scheme"));
        PortChoice::of_service(service, slices, preferred)
    }
}

/// The prefix of the annotations that are addressed to Waypost: `waypost.dev/weight`, `…/version`,
/// `…/tags` (separated by commas), `…/scheme`, `…/path`, `…/port`, `…/id` (on slices with one
/// endpoint) and, for metadata, `…/meta.<key>`. Annotations of a slice override those of its Service.
pub(crate) const ANNOTATION_PREFIX: &str = "waypost.dev/";

/// The metadata key that says what could not be read.
const DEGRADED: &str = "degraded";

/// A slice and the instances that it was mapped to, one for each endpoint.
pub(crate) type MappedSlice<'a> = (&'a EndpointSlice, &'a [Option<Arc<Instance>>]);

/// The instance of each endpoint of a slice; `None` for an endpoint without a usable address, or
/// without the port to call. If `is_expired`, all are critical. Instances whose endpoint is the same as
/// in `earlier` are reused.
pub(crate) fn map_slice(
    context: &MappingContext,
    slice: &EndpointSlice,
    is_expired: bool,
    earlier: Option<MappedSlice<'_>>,
) -> Vec<Option<Arc<Instance>>> {
    let Some(mapper) = Mapper::of_slice(context, slice) else {
        return vec![None; slice.endpoints().len()];
    };
    let reusable = earlier.filter(|(earlier, _)| {
        earlier.ports == slice.ports
            && earlier.metadata.labels == slice.metadata.labels
            && earlier.metadata.annotations == slice.metadata.annotations
    });
    let known: HashMap<&Endpoint, &Option<Arc<Instance>>> = reusable
        .map(|(earlier, instances)| earlier.endpoints().iter().zip(instances).collect())
        .unwrap_or_default();
    let map = |endpoint: &Endpoint| {
        if let Some(instance) = known.get(endpoint) {
            return (*instance).clone();
        }
        mapper.map(endpoint, is_expired).unwrap_or_else(|error| {
            tracing::warn!(slice = &*slice.metadata.name, %error, "ignoring an invalid endpoint");
            None
        })
    };
    slice.endpoints().iter().map(map).collect()
}

/// The one instance of an `ExternalName` Service.
pub(crate) fn map_external_name(
    context: &MappingContext,
    service: &Service,
    external_name: &str,
) -> Option<Arc<Instance>> {
    map_host_name(context, service, external_name.trim_end_matches('.'))
}

/// One instance at the Service's own cluster DNS name, for when its slices may not be read: DNS and
/// kube-proxy then choose the endpoint.
pub(crate) fn map_cluster_dns(
    context: &MappingContext,
    service: &Service,
) -> Option<Arc<Instance>> {
    let name = &service.metadata.name;
    let (namespace, domain) = (&context.namespace, &context.options.cluster_domain);
    map_host_name(
        context,
        service,
        &format!("{name}.{namespace}.svc.{domain}"),
    )
}

fn map_host_name(context: &MappingContext, service: &Service, host: &str) -> Option<Arc<Instance>> {
    let ports = Ports::of_service(service, &context.port)?;
    let mapper = Mapper::new(context, &EndpointSlice::default(), ports);
    let instance = host
        .parse()
        .and_then(|host| mapper.build(mapper.builder(host)));
    match instance {
        Ok(instance) => Some(Arc::new(instance)),
        Err(error) => {
            tracing::warn!(service = %context.name, %error, "ignoring a Service with an invalid host name");
            None
        }
    }
}

/// The health of an endpoint. An absent `ready` or `serving` counts as true, an absent `terminating`
/// as false (`EndpointConditions` in the API reference; kube-proxy does the same).
pub(crate) fn health(conditions: Option<EndpointConditions>) -> Health {
    let EndpointConditions {
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

/// Whether the endpoint is ready but has no zone hint.
pub(crate) fn lacks_hint(endpoint: &Endpoint) -> bool {
    health(endpoint.conditions).takes_traffic() && zone_hint(endpoint).is_none()
}

/// The zone that should use the endpoint. If there are several, its own zone if that is one of them.
fn zone_hint(endpoint: &Endpoint) -> Option<&str> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_deref()?;
    let own = zones
        .iter()
        .find(|zone| Some(&zone.name) == endpoint.zone.as_ref());
    own.or(zones.first()).map(|zone| &*zone.name)
}

/// Maps the endpoints of one slice.
struct Mapper<'a> {
    context: &'a MappingContext,
    ports: Ports,
    /// The labels of the Service and of the slice together.
    labels: StringMap,
    annotations: StringMap,
    is_only_endpoint: bool,
}

impl<'a> Mapper<'a> {
    /// `None` if the slice does not have the port to call.
    fn of_slice(context: &'a MappingContext, slice: &EndpointSlice) -> Option<Self> {
        let annotation = |key: &str| {
            let key = format!("{ANNOTATION_PREFIX}{key}");
            slice.metadata.annotation(&key)
        };
        let own = annotation("port").or_else(|| annotation("scheme"));
        let own = own.filter(|_| context.named_port.is_none());
        let ports = Ports::of_slice(slice, &context.port, own)?;
        Some(Self::new(context, slice, ports))
    }

    fn new(context: &'a MappingContext, slice: &EndpointSlice, ports: Ports) -> Self {
        let service = context.service.as_deref();
        let mut labels = StringMap::new();
        let mut annotations = StringMap::new();
        let sources = [
            service.map(|service| &service.metadata),
            Some(&slice.metadata),
        ];
        for metadata in sources.into_iter().flatten() {
            labels.extend(user_labels(metadata));
            let all = metadata.annotations.iter().flatten();
            annotations.extend(all.map(|(key, value)| (key.clone(), value.clone())));
        }
        Self {
            context,
            ports,
            labels,
            annotations,
            is_only_endpoint: slice.endpoints().len() == 1,
        }
    }

    /// `None` for an endpoint without an address.
    fn map(&self, endpoint: &Endpoint, is_expired: bool) -> Result<Option<Arc<Instance>>, Invalid> {
        // Several addresses are alternatives for the same endpoint, in no particular order.
        let addresses = endpoint.addresses.as_deref().unwrap_or_default();
        let Some(address) = addresses.first() else {
            return Ok(None);
        };
        let health = if is_expired {
            Health::Critical
        } else {
            health(endpoint.conditions)
        };
        let mut builder = self.builder(parse_host(address)?).health(health);
        if let Some(id) = self.annotated_id().or_else(|| self.target_id(endpoint)) {
            builder = builder.id(id);
        }
        // Without hints, traffic of the Service doesn't have to stay in a zone.
        if let Some(zone) = zone_hint(endpoint).filter(|_| self.context.use_hints) {
            builder = builder.zone(zone);
        }
        let pod = endpoint.target_ref.as_ref();
        let pod = pod.filter(|target| target.kind.as_deref() == Some("Pod"));
        for (key, value) in [
            ("pod", pod.and_then(|pod| pod.name.as_deref())),
            ("node", endpoint.node_name.as_deref()),
            ("hostname", endpoint.hostname.as_deref()),
            ("zone", endpoint.zone.as_deref()),
        ] {
            if let Some(value) = value {
                builder = builder.meta(key, value);
            }
        }
        Ok(Some(Arc::new(self.build(builder)?)))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        let value = self
            .annotations
            .get(format!("{ANNOTATION_PREFIX}{key}").as_str());
        Some(value?)
    }

    /// The id that an annotation gives to the only endpoint of a slice.
    fn annotated_id(&self) -> Option<InstanceId> {
        let id = self.annotation("id").filter(|_| self.is_only_endpoint);
        id.map(InstanceId::from)
    }

    /// The object behind the endpoint, usually a pod: its name stays the same while the endpoint's
    /// address or slice changes, and only one object at a time has it.
    fn target_id(&self, endpoint: &Endpoint) -> Option<InstanceId> {
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

    /// Begins an instance with everything that does not depend on the endpoint, except what
    /// [`Self::build`] adds.
    fn builder(&self, host: Host) -> InstanceBuilder {
        let MappingContext {
            name, namespace, ..
        } = self.context;
        let ignored = &self.context.options.ignored;
        let authority = host.to_string();
        let ignore = |invalid: Invalid| ignored.field(name, &authority, &invalid);
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
        if let Some(version) = self.annotation("version").or(version.map(|v| &**v)) {
            builder = builder.version(version);
        }
        if let Some(weight) = self.annotation("weight") {
            let weight = weight.parse::<Weight>().map_err(ignore);
            builder = builder.weight(weight.unwrap_or_default());
        }
        if let Some(tags) = self.annotation("tags") {
            let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            builder = builder.tags(tags);
        }
        if let Some(scheme) = self.annotation("scheme") {
            builder.try_scheme(scheme).unwrap_or_else(ignore);
        }
        if let Some(path) = self.annotation("path") {
            builder.try_path_prefix(path).unwrap_or_else(ignore);
        }
        builder
    }

    /// Adds the metadata that has precedence: annotations, and what could not be read.
    fn build(&self, mut builder: InstanceBuilder) -> Result<Instance, Invalid> {
        let meta_prefix = format!("{ANNOTATION_PREFIX}meta.");
        let copied = &self.context.options.annotations;
        for (key, value) in &self.annotations {
            match key.strip_prefix(meta_prefix.as_str()) {
                Some(key) if !key.is_empty() => builder = builder.meta(key, value.clone()),
                _ if copied.contains(key) => builder = builder.meta(key.clone(), value.clone()),
                _ => {}
            }
        }
        if let Some(degraded) = self.context.degraded {
            builder = builder.meta(DEGRADED, degraded);
        }
        builder.build()
    }
}

/// Parses the address of an endpoint. Slices that were created before Kubernetes validated addresses
/// strictly may hold IPv4 addresses with leading zeros. Kubernetes reads these as decimal, other
/// parsers as octal or not at all.
fn parse_host(address: &str) -> Result<Host, Invalid> {
    let parts: Vec<u8> = address.split('.').flat_map(str::parse).collect();
    match <[u8; 4]>::try_from(parts) {
        Ok(parts) if address.split('.').count() == 4 => Ok(Host::Ip(parts.into())),
        _ => address.parse(),
    }
}

/// The labels without those that Kubernetes adds for its own use. The EndpointSlice controller copies
/// the labels of a Service to its slices.
fn user_labels(metadata: &ObjectMeta) -> impl Iterator<Item = (Box<str>, Box<str>)> {
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
    fn absent_conditions_count_as_ready() {
        let yes = Some(true);
        let no = Some(false);
        for (ready, serving, terminating, expected) in [
            (yes, yes, no, Health::Passing),
            // A Service with publishNotReadyAddresses.
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
            let conditions = EndpointConditions {
                ready,
                serving,
                terminating,
            };
            assert_eq!(health(Some(conditions)), expected, "{conditions:?}");
        }
        assert_eq!(health(None), Health::Passing);
    }

    #[test]
    fn the_id_of_an_instance_is_its_target_or_else_its_address() {
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
            let instances = map(&text);
            let id = instances[0].as_ref().unwrap().id();
            assert_eq!(id.as_str(), expected, "{target}");
        }
    }

    #[test]
    fn an_invalid_endpoint_does_not_affect_the_others() {
        let text = r#"{"endpoints": [{"addresses": ["a b"]}, {"addresses": []}, {"addresses": ["010.0.0.02"]}]}"#;
        let instances = map(text);
        let hosts: Vec<_> = instances
            .iter()
            .flatten()
            .map(|i| i.host().bare())
            .collect();
        assert_eq!(hosts, ["10.0.0.2"]);
    }

    #[test]
    fn an_invalid_annotation_gets_its_default_and_the_instance_is_kept() {
        for (key, value) in [
            ("weight", "1.0"),
            ("weight", ""),
            ("weight", "-1"),
            ("scheme", "ht tp"),
            ("path", "/v2?x=1"),
            ("port", "none"),
        ] {
            let text = format!(
                r#"{{"metadata": {{"name": "s", "annotations": {{"waypost.dev/{key}": "{value}"}}}},
                  "ports": [{{"port": 8443, "name": "https"}}],
                  "endpoints": [{{"addresses": ["10.0.0.1"]}}]}}"#
            );
            let instances = map(&text);
            let instance = instances[0].as_ref().unwrap();
            assert_eq!(instance.url(), "https://10.0.0.1:8443", "{key}: {value}");
            assert_eq!(instance.weight(), Weight::default(), "{key}: {value}");
        }
    }

    fn map(slice: &str) -> Vec<Option<Arc<Instance>>> {
        let mut context = MappingContext {
            name: "web".parse().unwrap(),
            namespace: "demo".into(),
            options: Arc::new(DiscoveryOptions::in_demo()),
            service: None,
            port: PortChoice::Default,
            named_port: None,
            use_hints: false,
            degraded: None,
        };
        let slice = serde_json::from_str(slice).unwrap();
        context.port = context.choose_port(std::iter::once(&slice));
        map_slice(&context, &slice, false, None)
    }
}
