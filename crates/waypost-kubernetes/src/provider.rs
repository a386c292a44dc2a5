//! The provider and its builder.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use waypost_core::provider::{
    HeartbeatResponse, InstanceReport, NamesWatch, Provider, Registry, Watch,
};
use waypost_core::{
    ConfigError, Environment, Error, InstanceId, ProviderError, Registration, ServiceName,
};

use crate::client::{ApiClient, GetRequest};
use crate::config::{CONTEXT, ConfigSource, KUBECONFIG};
use crate::informer_factory::InformerFactory;
use crate::label_selector::LabelSelector;
use crate::namespaces::Namespaces;
use crate::objects::ObjectClient;
use crate::options::DiscoveryOptions;
use crate::rbac::{DISCOVERY, MissingPermissions, REGISTRATION, RbacAdvisor};
use crate::registry::SliceRegistry;
use crate::service_ref::is_dns_label;

/// Finds the endpoints of Kubernetes Services, and registers instances that run outside the cluster.
///
/// Instances come from the EndpointSlices ([`discovery.k8s.io/v1`]) of a Service. The name `web` is
/// that Service in the default namespace; `web.demo`, `web.demo.svc` and `web.demo.svc.cluster.local`
/// are in the namespace `demo`. `web_admin` and `web_admin.demo` are these Services at their port named
/// `admin`.
///
/// | Kubernetes | instance |
/// |---|---|
/// | `targetRef`, else address and port | id |
/// | the first of `addresses` | host; in a dual-stack cluster that of the Service's first family |
/// | [`conditions`] | health: passing if `ready` is true or absent; else draining if `terminating` and `serving` is true or absent; else critical |
/// | the only port; the preferred one; `http`, `https`, `grpc`, `web`; the Service's first | port; all ports with a name are named ports |
/// | `appProtocol`, else the port's name, else https for 443 and 8443 | scheme |
/// | the zone of `hints`, if all ready endpoints have hints, else `zone` | zone |
/// | label `app.kubernetes.io/version` | version |
/// | labels, and the annotations chosen by [`KubernetesBuilder::annotation`] | metadata, with `namespace`, `pod`, `node`, `zone` |
/// | annotations `waypost.dev/weight`, `version`, `tags`, `scheme`, `path`, `port`, `meta.KEY` | as named |
///
/// An `ExternalName` Service is one instance at that name. If EndpointSlices may not be read, a
/// Service is one instance at its cluster DNS name. The metadata `degraded` says what could not be
/// read.
///
/// Each namespace, or all of them together ([`KubernetesBuilder::all_namespaces`]), takes two watches,
/// however many services are looked up. They are reopened every 30 to 60 s. Known objects are kept whatever
/// happens to the API server; only a complete new list replaces them:
///
/// | failure | noticed after | recovers after |
/// |---|---|---|
/// | the server closes its connections | at once | 2 s |
/// | the server or its etcd hangs | 16 s | 2 s |
/// | the server refuses new connections while watches stay open | 11 s | 2 s |
/// | a single connection is dead | 65 s | at once |
/// | etcd is restored to an earlier state | 13 s | at once |
/// | the resource version has expired (410 Gone) | at once | at once, by a new list |
/// | a permission is missing | at once | 30 s after it is granted |
/// | an instance outside the cluster is not renewed | 3 minutes | with the next renewal |
///
/// ```no_run
/// # use waypost_kubernetes::KubernetesProvider;
/// let provider = KubernetesProvider::builder().namespace("demo").build()?;
/// # Ok::<(), waypost_core::Error>(())
/// ```
///
/// [`discovery.k8s.io/v1`]: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
/// [`conditions`]: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions
#[derive(Clone)]
pub struct KubernetesProvider {
    informers: Arc<InformerFactory>,
    registry: Arc<SliceRegistry>,
    advisor: Arc<RbacAdvisor>,
    namespace: Arc<str>,
}

impl KubernetesProvider {
    /// A builder that takes options that are not set from the environment of this process.
    pub fn builder() -> KubernetesBuilder {
        KubernetesBuilder::new(&Environment::of_this_process())
    }

    /// A provider for the cluster and namespace that the environment names.
    ///
    /// # Errors
    /// If a variable or a file is invalid.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        KubernetesBuilder::new(environment).build()
    }

    /// The namespace of names that do not include one.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Access to objects of any kind, for controllers.
    pub fn objects(&self) -> ObjectClient {
        ObjectClient::new(self.informers.client())
    }

    /// Queries the API server's version and the permissions of this client, for diagnosis. Makes one
    /// attempt.
    ///
    /// # Errors
    /// If the server can't be reached, or refuses to answer.
    pub async fn access_report(&self) -> Result<AccessReport, ProviderError> {
        let client = self.informers.client();
        let request = GetRequest::new("/version", &[]);
        let version: Result<Version, _> = client.get(request, ApiClient::DEADLINE).await;
        let own = Namespaces::One(Arc::clone(&self.namespace));
        let lists_all_namespaces = self.informers.lists_all_namespaces();
        let found_in = if lists_all_namespaces {
            &Namespaces::All
        } else {
            &own
        };
        let lookups = self.advisor.review(found_in, &DISCOVERY).await;
        let registration = self.advisor.review(&own, &REGISTRATION).await;
        Ok(AccessReport {
            lists_all_namespaces,
            missing_for_lookups: lookups.map_err(|error| error.error)?,
            missing_for_registration: registration.map_err(|error| error.error)?,
            namespace: self.namespace.to_string(),
            server_version: version.ok().map(|version| version.git_version),
        })
    }
}

/// The state of an API server and the permissions of this client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessReport {
    /// The namespace of names that do not include one.
    pub namespace: String,
    /// Whether services are found in all namespaces with one informer, which needs permissions at the
    /// cluster scope ([`KubernetesBuilder::all_namespaces`]).
    pub lists_all_namespaces: bool,
    /// The version of the server, such as `v1.33.1`, if the server reports it.
    pub server_version: Option<String>,
    /// The missing permissions for finding services.
    pub missing_for_lookups: Option<MissingPermissions>,
    /// The missing permissions for registering instances that run outside of the cluster.
    pub missing_for_registration: Option<MissingPermissions>,
}

/// The response of `/version`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

impl fmt::Debug for KubernetesProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesProvider")
            .field("client", self.informers.client())
            .finish_non_exhaustive()
    }
}

impl Provider for KubernetesProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(self.informers.client().describe())
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        self.informers.watch(service)
    }

    fn watch_names(&self) -> NamesWatch {
        self.informers.watch_names()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

/// Registers instances outside the cluster. In a pod every registration is refused; the error says what
/// to put into the pod's manifests instead.
impl Registry for KubernetesProvider {
    fn accepts(&self, registration: &Registration) -> Result<(), ProviderError> {
        self.registry.accepts(registration)
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registry.register(registration, report).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registry.deregister(id).boxed()
    }

    fn is_registered<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        self.registry.is_registered(id).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        let registry = &self.registry;
        async move { registry.heartbeat(registration, &report).await }.boxed()
    }

    fn set_maintenance<'a>(
        &'a self,
        registration: &'a Registration,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registry.set_maintenance(registration, reason).boxed()
    }

    fn local_address(&self) -> Option<IpAddr> {
        self.registry.local_address()
    }
}

const NAMESPACE: &str = "KUBERNETES_NAMESPACE";
const NAMESPACES: &str = "KUBERNETES_NAMESPACES";
/// The value of [`NAMESPACES`] that stands for all.
const ALL_NAMESPACES: &str = "*";
const SERVICE_SELECTOR: &str = "KUBERNETES_SERVICE_SELECTOR";
const CLUSTER_DOMAIN: &str = "KUBERNETES_CLUSTER_DOMAIN";
const NODE_NAME: &str = "KUBERNETES_NODE_NAME";
const ZONE: &str = "SERVICE_DISCOVERY_ZONE";

/// Builds a [`KubernetesProvider`].
///
/// Options that are not set are taken from the environment: `KUBECONFIG`, `KUBERNETES_CONTEXT`,
/// `KUBERNETES_NAMESPACE`, `KUBERNETES_NAMESPACES`, `KUBERNETES_SERVICE_SELECTOR`,
/// `KUBERNETES_CLUSTER_DOMAIN`, `KUBERNETES_NODE_NAME`, `SERVICE_DISCOVERY_ZONE`, and in a pod its service
/// account.
#[derive(Clone, Debug, Default)]
#[must_use = "call `build` to get a provider"]
pub struct KubernetesBuilder {
    environment: Environment,
    namespace: Option<String>,
    namespaces: Option<Vec<String>>,
    service_selector: Option<String>,
    cluster_domain: Option<String>,
    annotations: Vec<String>,
    port: Option<String>,
    node: Option<String>,
    zone: Option<String>,
}

impl KubernetesBuilder {
    fn new(environment: &Environment) -> Self {
        Self {
            environment: environment.clone(),
            ..Self::default()
        }
    }

    /// Uses this kubeconfig file, even in a pod.
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        let path: PathBuf = path.into();
        self.environment = self.environment.with(KUBECONFIG, &path.to_string_lossy());
        self
    }

    /// Uses this context of the kubeconfig instead of its current one.
    pub fn context(mut self, context: &str) -> Self {
        self.environment = self.environment.with(CONTEXT, context);
        self
    }

    /// Sets the namespace of names that do not include one. By default it is that of the pod or of
    /// the kubeconfig's context, else `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Also lists the Services of these namespaces, as `web.shop`. It doesn't limit look-ups: a name that
    /// includes a namespace is looked up there, if the permissions allow it. `*` stands for
    /// [all namespaces](Self::all_namespaces).
    pub fn namespaces<N: Into<String>>(mut self, namespaces: impl IntoIterator<Item = N>) -> Self {
        self.namespaces = Some(namespaces.into_iter().map(Into::into).collect());
        self
    }

    /// Lists the Services of all namespaces, as `web.shop` unless they are in the default one. Two watches
    /// of the whole cluster then serve all look-ups. They need permissions at the cluster scope: a
    /// ClusterRole and a ClusterRoleBinding. Namespaces that are created later are included.
    pub fn all_namespaces(self) -> Self {
        self.namespaces([ALL_NAMESPACES])
    }

    /// Lists only Services whose labels meet these conditions, in the syntax of
    /// `kubectl get --selector`: `key=value`, `key!=value`, `key` or `!key`, separated by commas. It
    /// doesn't limit look-ups.
    pub fn service_selector(mut self, selector: impl Into<String>) -> Self {
        self.service_selector = Some(selector.into());
        self
    }

    /// Sets the domain of the cluster's DNS, `cluster.local` by default.
    pub fn cluster_domain(mut self, domain: impl Into<String>) -> Self {
        self.cluster_domain = Some(domain.into());
        self
    }

    /// Copies an annotation of Services and EndpointSlices into the metadata of their instances, as
    /// is done with all labels. Can be called several times.
    pub fn annotation(mut self, key: impl Into<String>) -> Self {
        self.annotations.push(key.into());
        self
    }

    /// Sets the name of the port to call if a Service has several ports. The annotation
    /// `waypost.dev/port` overrides it.
    pub fn port(mut self, name: impl Into<String>) -> Self {
        self.port = Some(name.into());
        self
    }

    /// Sets the node that this process runs on. A Service with `internalTrafficPolicy: Local` then has
    /// the endpoints on this node only, and `trafficDistribution: PreferSameNode` applies.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Sets the zone that this process runs in. A Service whose endpoints have hints for zones, as with
    /// `trafficDistribution: PreferSameZone`, then has the endpoints for this zone only.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.zone = Some(name.into());
        self
    }

    /// Reads the configuration and builds the provider. Nothing is sent to the API server yet.
    ///
    /// # Errors
    /// If a variable or a file is invalid: which one, and what would be valid.
    pub fn build(self) -> Result<KubernetesProvider, Error> {
        let variable = |name: &str| self.environment.get(name).map(str::to_owned);
        let source = ConfigSource::from_environment(&self.environment)?;
        let (client, config) = ApiClient::new(source)?;
        let namespace = self
            .namespace
            .or_else(|| variable(NAMESPACE))
            .or(config.namespace)
            .unwrap_or_else(|| "default".to_owned());
        check_namespace(NAMESPACE, &namespace)?;
        let namespace: Arc<str> = namespace.into();
        let further = self.namespaces.or_else(|| {
            let list = variable(NAMESPACES)?;
            let names = list.split(',').map(str::trim);
            let names = names.filter(|name| !name.is_empty());
            Some(names.map(str::to_owned).collect())
        });
        let listed = listed_namespaces(&namespace, further.unwrap_or_default())?;
        let selector = (self.service_selector).or_else(|| variable(SERVICE_SELECTOR));
        let selector = LabelSelector::parse(selector.as_deref().unwrap_or_default())
            .map_err(|invalid| ConfigError::new(SERVICE_SELECTOR, invalid))?;
        let domain = self.cluster_domain.or_else(|| variable(CLUSTER_DOMAIN));
        let domain = domain.as_deref().unwrap_or("cluster.local");
        let options = DiscoveryOptions {
            namespace,
            listed_namespaces: listed,
            listed_services: selector,
            cluster_domain: domain.trim_matches('.').into(),
            annotations: self.annotations.into_iter().map(Into::into).collect(),
            port: self.port.map(Into::into),
            node: self.node.or_else(|| variable(NODE_NAME)).map(Into::into),
            zone: self.zone.or_else(|| variable(ZONE)).map(Into::into),
            ignored: Default::default(),
        };
        let advisor = Arc::new(RbacAdvisor::new(Arc::new(client)));
        let registry = SliceRegistry::new(
            Arc::clone(&advisor),
            Arc::clone(&options.namespace),
            Arc::clone(&options.cluster_domain),
        );
        Ok(KubernetesProvider {
            namespace: Arc::clone(&options.namespace),
            advisor: Arc::clone(&advisor),
            informers: Arc::new(InformerFactory::new(advisor, options)),
            registry: Arc::new(registry),
        })
    }
}

/// The default namespace and further ones, or all.
fn listed_namespaces(
    default: &Arc<str>,
    further: Vec<String>,
) -> Result<Vec<Namespaces>, ConfigError> {
    if further.iter().any(|name| name == ALL_NAMESPACES) {
        if further.len() > 1 {
            let problem = "\"*\" stands for all namespaces; don't list other namespaces with it";
            return Err(ConfigError::new(NAMESPACES, problem));
        }
        return Ok(vec![Namespaces::All]);
    }
    let mut listed = vec![Namespaces::One(Arc::clone(default))];
    for name in further {
        check_namespace(NAMESPACES, &name)?;
        let namespace = Namespaces::One(name.into());
        if !listed.contains(&namespace) {
            listed.push(namespace);
        }
    }
    Ok(listed)
}

fn check_namespace(variable: &str, namespace: &str) -> Result<(), ConfigError> {
    if is_dns_label(namespace) {
        return Ok(());
    }
    let problem = format!(
        "{namespace:?} is not a valid namespace; use at most 63 of a-z, 0-9 and '-', beginning and \
         ending with a letter or digit"
    );
    Err(ConfigError::new(variable, problem))
}
