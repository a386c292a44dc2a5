//! The periodic tasks of an agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::agent_info::CONSUL_VERSION;
use crate::app::{App, SERVER_PORT};
use crate::store::{Check, CheckStatus, Service, Store, Topic};

/// How often services that have been critical for too long are removed (Consul's
/// `check_reap_interval`).
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// How often the catalog is synchronized with the state of this agent (Consul's `ae_interval`).
const SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// The service and the check that a Consul server registers for itself.
const SERVER_SERVICE: &str = "consul";
const SERVER_CHECK: &str = "serfHealth";

/// Starts all tasks. They run until they are aborted.
pub(crate) fn start(app: &Arc<App>) -> [JoinHandle<()>; 3] {
    [
        tokio::spawn(reap(Arc::clone(app))),
        tokio::spawn(sync_catalog(Arc::clone(app))),
        tokio::spawn(expire_sessions(Arc::clone(app))),
    ]
}

async fn reap(app: Arc<App>) {
    loop {
        tokio::time::sleep(REAP_INTERVAL).await;
        for id in app.agent_services.reap() {
            app.monitor.service_deregistered(&id);
        }
    }
}

/// Undoes changes that clients have made in the catalog to the node of this agent.
async fn sync_catalog(app: Arc<App>) {
    loop {
        tokio::time::sleep(SYNC_INTERVAL).await;
        app.store.write(|state, changes| {
            let catalog = &mut state.catalog;
            state
                .local
                .anti_entropy(SERVER_SERVICE, SERVER_CHECK, catalog, changes);
        });
        register_server(&app.store, &app.node_name);
    }
}

/// Ends sessions that aren't renewed in time.
async fn expire_sessions(app: Arc<App>) {
    let watch = app.store.watch(Topic::Sessions);
    loop {
        let change = watch.listen();
        match app.store.read(|state| state.sessions.next_deadline()) {
            None => change.await,
            Some(deadline) => tokio::select! {
                () = change => {}
                () = tokio::time::sleep_until(deadline.into()) => {
                    let now = Instant::now().into_std();
                    app.store.write(|state, changes| state.expire_sessions(now, changes));
                }
            },
        }
    }
}

/// Registers the service and check that clients expect of a Consul server.
pub(crate) fn register_server(store: &Store, node: &str) {
    let meta = [
        ("non_voter", "false"),
        ("raft_version", "3"),
        ("serf_protocol_current", "2"),
        ("serf_protocol_max", "5"),
        ("serf_protocol_min", "1"),
        ("version", CONSUL_VERSION),
    ];
    let meta = meta.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let service = Service {
        id: SERVER_SERVICE.to_owned(),
        name: SERVER_SERVICE.to_owned(),
        meta: Some(BTreeMap::from(meta)),
        port: i64::from(SERVER_PORT),
        ..Service::default()
    };
    let check = Check {
        node: node.to_owned(),
        id: SERVER_CHECK.to_owned(),
        name: "Serf Health Status".to_owned(),
        status: CheckStatus::Passing,
        output: "Agent alive and reachable".to_owned(),
        ..Check::default()
    };
    store.write(|state, changes| {
        state.catalog.put_service(node, service, changes);
        state.catalog.put_check(check, changes);
    });
}
