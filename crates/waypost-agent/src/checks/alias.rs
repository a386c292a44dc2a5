//! Alias checks: as well as another service, or node, is. They look when something changes there,
//! not at intervals.

use std::sync::Arc;

use tokio::time::Instant;

use crate::store::{
    Check, CheckDefinition, CheckResult, CheckStatus, State, Store, Topic, fold_case,
};

/// Follows the checks of the other for ever.
pub(super) async fn follow(id: String, check: Arc<CheckDefinition>, store: Arc<Store>) {
    let node = match check.alias_node.as_str() {
        "" => store.read(|state| state.local.node_name().to_owned()),
        node => node.to_owned(),
    };
    let watch = store.watch(Topic::Node(fold_case(&node)));
    loop {
        let change = watch.listen();
        let now = Instant::now().into_std();
        store.write(|state, changes| {
            let outcome = judge(state, &check, &node);
            state.record_check_result(&id, outcome, now, changes);
        });
        change.await;
    }
}

/// The worst of the checks of the aliased service and of its node.
fn judge(state: &State, alias: &CheckDefinition, node: &str) -> CheckResult {
    let checks = match alias.alias_node.as_str() {
        // What this agent knows of itself doesn't count the heartbeat between servers.
        "" => state.local.checks().map(|r| Arc::clone(&r.check)).collect(),
        _ => state.catalog.checks_of_node(node).1,
    };
    let concerns = |check: &&Arc<Check>| {
        check.service_id.is_empty() || check.service_id == alias.alias_service
    };
    let mut found = CheckResult {
        status: CheckStatus::Passing,
        output: "No checks found.".to_owned(),
    };
    for check in checks.iter().filter(concerns) {
        if check.status == CheckStatus::Passing {
            if found.status == CheckStatus::Passing {
                "All checks passing.".clone_into(&mut found.output);
            }
        } else if check.status > found.status {
            found = CheckResult {
                status: check.status,
                output: format!("Aliased check {:?} failing: {}", check.name, check.output),
            };
        }
    }
    found
}
