//! Follows the objects and the Secrets, replaces the routes and the certificates, and passes status changes to
//! the writer.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use waypost::ProviderErrorKind;
use waypost::provider::kubernetes::objects::{ObjectKey, ObjectKind, Objects as Watched};

use super::objects::{
    CLASSES, GATEWAYS, GRANTS, Gateway, GatewayClass, HttpRoute, NAMESPACES, Namespace, Objects,
    ROUTES, ReferenceGrant, SERVICES, Service,
};
use super::resolve::{StatusChange, resolve};
use super::secrets::Secrets;
use super::snapshot::SnapshotFile;
use super::{GatewayApi, Settings, secrets, status_writer};
use crate::config::Config;
use crate::routes::{ObjectsState, Routes};
use crate::server_tls::ServerTls;

/// The first is probed to find out whether the server responds, so it is one that every cluster has.
const KINDS: [ObjectKind; 6] = [SERVICES, NAMESPACES, CLASSES, GATEWAYS, ROUTES, GRANTS];

/// An object of one of these kinds.
enum Object {
    Service(Service),
    Namespace(Namespace),
    Class(GatewayClass),
    Gateway(Gateway),
    Route(HttpRoute),
    Grant(ReferenceGrant),
}

/// Follows the Gateway API as long as it is polled; never returns. Without a configuration for it, does
/// nothing.
pub(crate) async fn follow(config: &Config, routes: &Routes, tls: Option<&ServerTls>) {
    let Some(api) = &config.gateway_api else {
        return std::future::pending().await;
    };
    let (wanted_secrets, secrets_to_read) = watch::channel(BTreeSet::new());
    let (read_secrets, mut known_secrets) = watch::channel(Secrets::new());
    let (changes, wanted_changes) = watch::channel(Vec::new());
    let mut controller = Controller::new(api, config, routes, tls, wanted_secrets);
    let client = api.provider.objects();
    let mut objects = client.watch(&KINDS, parse);
    let following = async {
        let mut watched = Vec::new();
        loop {
            tokio::select! {
                new = objects.changed() => match new {
                    Some(new) => watched = new,
                    None => return std::future::pending().await,
                },
                Ok(()) = known_secrets.changed() => {}
            }
            if watched.is_empty() {
                // Only Secrets that the snapshot file names have been read. They are applied with the first report
                // about the objects.
                continue;
            }
            let secrets = known_secrets.borrow_and_update().clone();
            if let Some(new) = controller.apply(&watched, &secrets).await {
                changes.send_replace(new);
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = secrets::follow(&client, api.secret_interval, secrets_to_read, read_secrets) => {}
        () = status_writer::write(&client, wanted_changes) => {}
    }
}

struct Controller<'a> {
    settings: Settings,
    routes: &'a Routes,
    tls: Option<&'a ServerTls>,
    wanted_secrets: watch::Sender<BTreeSet<ObjectKey>>,
    snapshot: Option<SnapshotFile>,
    /// The objects of the snapshot file, for kinds that haven't been listed yet.
    restored: Option<Objects>,
    /// The error that was logged last.
    logged: Option<String>,
    logged_class: Option<String>,
}

impl<'a> Controller<'a> {
    fn new(
        api: &GatewayApi,
        config: &Config,
        routes: &'a Routes,
        tls: Option<&'a ServerTls>,
        wanted_secrets: watch::Sender<BTreeSet<ObjectKey>>,
    ) -> Self {
        let settings = Settings {
            class: api.class.clone(),
            has_tls: tls.is_some(),
            has_files: !config.tls.is_empty(),
            port: api.port,
            addresses: api.addresses.clone(),
            namespace: api.provider.namespace().to_owned(),
            allows_external_names: !config.cluster_addresses_only,
        };
        let snapshot = api.snapshot_file.clone().map(SnapshotFile::new);
        let restored = snapshot.as_ref().and_then(SnapshotFile::read);
        let mut controller = Self {
            settings,
            routes,
            tls,
            wanted_secrets,
            snapshot,
            restored: None,
            logged: None,
            logged_class: None,
        };
        if let Some(objects) = &restored {
            controller.use_objects(objects, &Secrets::new());
            tracing::info!(
                "HTTPRoutes from the snapshot file are used until the API server has listed them"
            );
        }
        controller.restored = restored;
        controller
    }

    /// Replaces the routes and the certificates. Returns the status changes.
    fn use_objects(&self, objects: &Objects, secrets: &Secrets) -> Vec<StatusChange> {
        let resolution = resolve(objects, secrets, &self.settings);
        self.routes.apply_http_routes(resolution.routes);
        if let Some(tls) = self.tls {
            tls.set_listeners(resolution.tls_listeners);
        }
        self.wanted_secrets.send_if_modified(|wanted| {
            let is_new = *wanted != resolution.secrets;
            *wanted = resolution.secrets;
            is_new
        });
        resolution.changes
    }

    /// Applies the objects that are known. Returns the status changes if all objects are up to date.
    async fn apply(
        &mut self,
        watched: &[Watched<Object>],
        secrets: &Secrets,
    ) -> Option<Vec<StatusChange>> {
        let error = watched.iter().find_map(Watched::error);
        self.log(watched);
        let mut state = ObjectsState {
            is_known: self.routes.are_objects_known(),
            error: error.map(ToString::to_string),
            confirmed_at: watched.iter().filter_map(Watched::confirmed_at).min(),
        };
        let Some(objects) = collect(watched, self.restored.as_ref()) else {
            // Without the CustomResourceDefinitions there are no routes to wait for.
            state.is_known |= watched.iter().any(is_absent);
            self.routes.set_objects_state(state);
            return None;
        };
        let changes = self.use_objects(&objects, secrets);
        state.is_known = true;
        self.routes.set_objects_state(state);
        let is_current = watched.iter().all(is_settled);
        if !is_current {
            return None;
        }
        self.log_class(&objects);
        self.restored = None;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.save(&objects).await;
        }
        error.is_none().then_some(changes)
    }

    /// Logs the beginning and the end of an outage.
    fn log(&mut self, watched: &[Watched<Object>]) {
        let failing = watched.iter().find(|kind| kind.error().is_some());
        let error = failing.and_then(Watched::error);
        let kind = error.map(|error| (error.kind(), failing.map(|it| *it.kind())));
        let now = kind.map(|kind| format!("{kind:?}"));
        if now == self.logged {
            return;
        }
        match error {
            Some(error) if failing.is_some_and(Watched::is_refused) => tracing::error!(
                "can't watch HTTPRoutes: {error}; see the permissions in docs/gateway.md"
            ),
            Some(error) => {
                tracing::warn!(
                    "HTTPRoutes may be outdated: {error}; the last known routes stay in use"
                );
            }
            None => tracing::info!("watching HTTPRoutes"),
        }
        self.logged = now;
    }

    /// Logs why no Gateway can be served, if that is because of the class.
    fn log_class(&mut self, objects: &Objects) {
        let name = &self.settings.class;
        let found = objects.classes.iter().find(|it| it.metadata.name == *name);
        let problem = match found.map(|class| class.spec.controller_name.as_str()) {
            Some(super::CONTROLLER) => None,
            Some(other) => Some(format!(
                "GatewayClass {name} has the controllerName {other:?} instead of {:?}",
                super::CONTROLLER
            )),
            None => Some(format!("there is no GatewayClass {name}")),
        };
        if problem != self.logged_class {
            if let Some(problem) = &problem {
                tracing::warn!("{problem}; no HTTPRoute is in use");
            }
            self.logged_class = problem;
        }
    }
}

/// Whether there is nothing to wait for: the kind has been listed, or it is optional and refused.
fn is_settled(watched: &Watched<Object>) -> bool {
    let is_optional = [NAMESPACES, GRANTS].contains(watched.kind());
    watched.is_listed() || (is_optional && watched.is_refused())
}

/// Whether the cluster doesn't have this kind.
fn is_absent(watched: &Watched<Object>) -> bool {
    let kind = watched.error().map(|error| error.kind());
    watched.is_refused() && kind == Some(ProviderErrorKind::Rejected)
}

/// The known objects; `None` if some are unknown. Kinds that haven't been listed are taken from the
/// snapshot.
fn collect(watched: &[Watched<Object>], restored: Option<&Objects>) -> Option<Objects> {
    let mut objects = restored.cloned().unwrap_or_default();
    for kind in watched {
        if !kind.is_listed() {
            if restored.is_none() && !is_settled(kind) {
                return None;
            }
            continue;
        }
        match *kind.kind() {
            SERVICES => objects.services.clear(),
            NAMESPACES => objects.namespaces.clear(),
            CLASSES => objects.classes.clear(),
            GATEWAYS => objects.gateways.clear(),
            ROUTES => objects.routes.clear(),
            _ => objects.grants.clear(),
        }
        for (_, object) in kind.iter() {
            match &**object {
                Object::Service(it) => objects.services.push(it.clone()),
                Object::Namespace(it) => objects.namespaces.push(it.clone()),
                Object::Class(it) => objects.classes.push(it.clone()),
                Object::Gateway(it) => objects.gateways.push(it.clone()),
                Object::Route(it) => objects.routes.push(it.clone()),
                Object::Grant(it) => objects.grants.push(it.clone()),
            }
        }
    }
    Some(objects)
}

/// Reads an object; `None` if it is unreadable.
fn parse(kind: &ObjectKind, object: Value) -> Option<Object> {
    fn read<T: DeserializeOwned>(
        kind: &ObjectKind,
        object: Value,
        of: fn(T) -> Object,
    ) -> Option<Object> {
        let (namespace, name) = (
            object["metadata"]["namespace"].to_string(),
            object["metadata"]["name"].to_string(),
        );
        let warn = |error: &serde_json::Error| {
            tracing::warn!(
                %kind, namespace, name, %error,
                "an object is unreadable; its last readable version stays in use, if there is one"
            );
        };
        serde_json::from_value(object)
            .inspect_err(warn)
            .ok()
            .map(of)
    }
    match *kind {
        SERVICES => read(kind, object, Object::Service),
        // Only the metadata of a Namespace is used.
        NAMESPACES => Some(Object::Namespace(Namespace {
            metadata: serde_json::from_value(object["metadata"].clone()).unwrap_or_default(),
            ..Namespace::default()
        })),
        CLASSES => read(kind, object, Object::Class),
        GATEWAYS => read(kind, object, Object::Gateway),
        ROUTES => read(kind, object, Object::Route),
        _ => read(kind, object, Object::Grant),
    }
}
