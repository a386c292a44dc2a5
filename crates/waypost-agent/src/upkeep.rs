//! What an agent does by itself, now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::app::{App, SERVER_PORT};
use crate::self_report::CONSUL_VERSION;
use crate::store::{Check, Service, Status, Store, Topic};

/// How often overdue services are looked for (Consul's `check_reap_interval`).
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// How often the catalog is made to agree with what this agent knows (Consul's `ae_interval`).
const SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// What a Consul server registers of itself.
const SERVICE_OF_SERVERS: &str = "consul";
const CHECK_OF_NODES: &str = "serfHealth";

/// Starts it all. It goes on until the tasks are aborted.
pub(crate) fn start(app: &Arc<App>) -> [JoinHandle<()>; 3] {
    [
        tokio::spawn(reap(Arc::clone(app))),
        tokio::spawn(sync(Arc::clone(app))),
        tokio::spawn(expire_sessions(Arc::clone(app))),
    ]
}

async fn reap(app: Arc<App>) {
    loop {
        tokio::time::sleep(REAP_INTERVAL).await;
        app.registration.reap();
    }
}

/// Undoes, now and then, what others have written to the catalog about this node.
async fn sync(app: Arc<App>) {
    loop {
        tokio::time::sleep(SYNC_INTERVAL).await;
        app.store.write(|state, changes| {
            state.anti_entropy([SERVICE_OF_SERVERS, CHECK_OF_NODES], changes);
        });
        introduce_self(&app.store, &app.node_name);
    }
}

/// Ends sessions that nobody renews in time.
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

/// A Consul server registers itself and says that it is alive; clients expect to see it.
pub(crate) fn introduce_self(store: &Store, node: &str) {
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
        id: SERVICE_OF_SERVERS.to_owned(),
        name: SERVICE_OF_SERVERS.to_owned(),
        meta: Some(BTreeMap::from(meta)),
        port: i64::from(SERVER_PORT),
        ..Service::default()
    };
    let check = Check {
        node: node.to_owned(),
        id: CHECK_OF_NODES.to_owned(),
        name: "Serf Health Status".to_owned(),
        status: Status::Passing,
        output: "Agent alive and reachable".to_owned(),
        ..Check::default()
    };
    store.write(|state, changes| {
        state.catalog.put_service(node, service, changes);
        state.catalog.put_check(check, changes);
    });
}
