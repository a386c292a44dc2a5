//! Alias checks, which have the status of another service or node. They are updated when that status
//! changes, not at intervals.

use std::sync::Arc;

use tokio::time::Instant;

use crate::store::{
    Check, CheckDefinition, CheckResult, CheckStatus, State, Store, Topic, fold_case,
};

/// Keeps the check `id` up to date. Never returns.
pub(super) async fn run(id: String, check: Arc<CheckDefinition>, store: Arc<Store>) {
    let node = match check.alias_node.as_str() {
        "" => store.read(|state| state.local.node_name().to_owned()),
        node => node.to_owned(),
    };
    let watch = store.watch(Topic::Node(fold_case(&node)));
    loop {
        let change = watch.listen();
        let now = Instant::now().into_std();
        store.write(|state, changes| {
            let result = aggregate(state, &check, &node);
            state.record_check_result(&id, result, now, changes);
        });
        change.await;
    }
}

/// The worst result of the checks of the aliased service and of its node.
fn aggregate(state: &State, alias: &CheckDefinition, node: &str) -> CheckResult {
    let checks = match alias.alias_node.as_str() {
        // The agent's own checks don't include `serfHealth`, which the catalog has.
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
