//! `/v1/waypost/checks`: checks with their definition, when they ran, and the history of their
//! status.

use std::sync::Arc;

use http::Method;
use serde::Serialize;

use super::super::blocking::{QueryKind, QueryResult};
use super::super::request::ApiRequest;
use super::super::response::ApiError;
use super::super::route::{Handler, Route};
use super::rfc3339;
use crate::go_compat;
use crate::store::{Check, CheckDefinition, CheckRecord, CheckStatus, State, Topic, fold_case};
use crate::text::mask_password;

pub(in super::super) const ROUTES: &[Route] = &[Route::new(
    "/v1/waypost/checks",
    &[(
        Method::GET,
        Handler::blocking(QueryKind::Catalog, topic, checks),
    )],
)];

/// A check and its history.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckView {
    node: String,
    #[serde(rename = "CheckID")]
    id: String,
    name: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_name: String,
    status: CheckStatus,
    /// The newest output. The catalog may show it later.
    output: String,
    last_changed: Option<String>,
    definition: DefinitionView,
    /// 0 for a check that this agent doesn't run.
    runs: u64,
    last_run: Option<String>,
    /// The next run; for a TTL check, when it expires. `None` before the second run, which comes after a
    /// random part of the interval.
    next_run: Option<String>,
    /// Oldest first.
    history: Vec<TransitionView>,
}

/// The definition of a check. The headers and the body of its request and the password in a URL are
/// omitted, because they may be secret.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DefinitionView {
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    http: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    method: String,
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    tcp: String,
    #[serde(rename = "GRPC", skip_serializing_if = "String::is_empty")]
    grpc: String,
    #[serde(rename = "TTL", skip_serializing_if = "String::is_empty")]
    ttl: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    script_args: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    alias_node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    alias_service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    interval: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    timeout: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TransitionView {
    time: String,
    /// A status, or `removed`.
    status: &'static str,
    output: String,
}

fn topic(request: &ApiRequest) -> Topic {
    match request.query.get("service") {
        "" => Topic::Checks,
        name => Topic::Service(fold_case(name)),
    }
}

/// All checks, or those that determine the health of one service.
fn checks(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let (index, views) = request.app.store.read(|state| {
        let (index, checks) = match request.query.get("service") {
            "" => state.catalog.checks_in_state(None),
            name => (state.catalog.service_index(name), checks_of(state, name)),
        };
        let views = checks.iter().map(|check| CheckView::new(state, check));
        (index, views.collect::<Vec<_>>())
    });
    let body = request.json_body(&views)?;
    Ok(QueryResult { index, body })
}

/// The checks of the instances of a service, and of their nodes.
fn checks_of(state: &State, service: &str) -> Vec<Arc<Check>> {
    let instances = state.catalog.instances(service);
    let mut checks: Vec<_> = instances.flat_map(|instance| instance.checks).collect();
    checks.sort_by_cached_key(|check| (fold_case(&check.node), fold_case(&check.id)));
    checks.dedup_by(|a, b| Arc::ptr_eq(a, b));
    checks
}

impl CheckView {
    fn new(state: &State, check: &Check) -> Self {
        let is_local = fold_case(&check.node) == fold_case(state.local.node_name());
        let record = state.local.check(&check.id).filter(|_| is_local);
        let history = state.check_history.of(&check.node, &check.id);
        let history: Vec<_> = history
            .map(|transition| TransitionView {
                time: rfc3339(transition.time),
                status: transition.status.map_or("removed", CheckStatus::as_str),
                output: transition.output.clone(),
            })
            .collect();
        Self {
            node: check.node.clone(),
            id: check.id.clone(),
            name: check.name.clone(),
            service_id: check.service_id.clone(),
            service_name: check.service_name.clone(),
            status: check.status,
            output: record
                .map_or(&check.output, |record| &record.check.output)
                .clone(),
            last_changed: history.last().map(|transition| transition.time.clone()),
            definition: DefinitionView::new(check, record),
            runs: record.map_or(0, |record| record.runs),
            last_run: record.and_then(|record| record.last_run).map(rfc3339),
            next_run: record.and_then(next_run),
            history,
        }
    }
}

fn next_run(record: &CheckRecord) -> Option<String> {
    let definition = record.definition.as_ref()?;
    let wait = if definition.ttl > 0 {
        go_compat::duration(definition.ttl)
    } else if definition.interval > 0 && record.runs > 1 {
        definition.interval()
    } else {
        return None;
    };
    Some(rfc3339(record.last_run?.checked_add(wait)?))
}

impl DefinitionView {
    fn new(check: &Check, record: Option<&CheckRecord>) -> Self {
        match (record, &check.definition) {
            (Some(record), _) => match &record.definition {
                Some(definition) => Self::of_local(definition),
                None => Self::default(),
            },
            (None, Some(definition)) => Self {
                http: mask_password(&definition.http),
                method: definition.method.clone(),
                tcp: definition.tcp.clone(),
                grpc: definition.grpc.clone(),
                ttl: go_compat::show_nonzero_duration(definition.ttl),
                script_args: definition.script_args.clone(),
                alias_node: definition.alias_node.clone(),
                alias_service: definition.alias_service.clone(),
                interval: definition.interval.clone(),
                timeout: definition.timeout.clone(),
            },
            (None, None) => Self::default(),
        }
    }

    fn of_local(definition: &CheckDefinition) -> Self {
        Self {
            http: mask_password(&definition.http),
            method: definition.method.clone(),
            tcp: definition.tcp.clone(),
            grpc: definition.grpc.clone(),
            ttl: go_compat::show_nonzero_duration(definition.ttl),
            script_args: definition.script_args.clone(),
            alias_node: definition.alias_node.clone(),
            alias_service: definition.alias_service.clone(),
            interval: go_compat::show_nonzero_duration(definition.interval),
            timeout: go_compat::show_nonzero_duration(definition.timeout),
        }
    }
}
