//! Transactions: several operations that are all applied, or none of them. The errors are Consul's.

mod catalog;
mod kv;

use std::sync::Arc;

use tokio::time::Instant;

use super::changes::Changes;
use super::model::{Check, KvEntry, Node, Service};
use super::state::State;

pub(crate) use kv::KvOperation;

/// One operation. Verbs with an index compare it with `modify_index` of the row.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Key(KvOperation),
    Node {
        verb: String,
        node: Node,
    },
    Service {
        verb: String,
        node: String,
        service: Service,
    },
    Check {
        verb: String,
        check: Check,
    },
}

/// A row that an operation has read or written.
#[derive(Clone, Debug)]
pub(crate) enum OperationResult {
    Key(Arc<KvEntry>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Check(Arc<Check>),
}

/// The error of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationError {
    /// The position of the operation in the transaction.
    pub operation: usize,
    pub message: String,
}

impl Operation {
    /// Whether it writes a Connect proxy or gateway, which aren't supported.
    pub(crate) fn writes_proxy_or_gateway(&self) -> bool {
        match self {
            Self::Service { service, .. } => service.is_proxy_or_gateway() && !self.is_read(),
            _ => false,
        }
    }

    /// Whether it only reads. An unknown key verb counts as a read, because it writes nothing.
    pub(crate) fn is_read(&self) -> bool {
        match self {
            Self::Key(operation) => operation.is_read(),
            Self::Node { verb, .. } | Self::Service { verb, .. } | Self::Check { verb, .. } => {
                verb == "get"
            }
        }
    }

    fn writes_catalog(&self) -> bool {
        !matches!(self, Self::Key(_)) && !self.is_read()
    }

    /// Checks what Consul checks before it applies any operation.
    fn validate(&self, state: &State, now: Instant) -> Result<(), String> {
        match self {
            Self::Key(operation) => operation.validate(&state.kv, now),
            operation if operation.is_read() => Ok(()),
            Self::Node { node, .. } => catalog::validate_node(node),
            Self::Service { service, .. } => catalog::validate_service(service),
            Self::Check { .. } => Ok(()),
        }
    }

    fn apply(
        &self,
        state: &mut State,
        results: &mut Vec<OperationResult>,
        changes: &mut Changes,
    ) -> Result<(), String> {
        let catalog = &mut state.catalog;
        let result = match self {
            Self::Key(operation) => {
                let entries = operation.apply(state, changes)?.into_iter();
                results.extend(entries.map(OperationResult::Key));
                return Ok(());
            }
            Self::Node { verb, node } => {
                let node = catalog::apply_node(catalog, verb, node.clone(), changes)?;
                node.map(OperationResult::Node)
            }
            Self::Service {
                verb,
                node,
                service,
            } => {
                let service =
                    catalog::apply_service(catalog, verb, node, service.clone(), changes)?;
                service.map(OperationResult::Service)
            }
            Self::Check { verb, check } => {
                let check = catalog::apply_check(catalog, verb, check.clone(), changes)?;
                check.map(OperationResult::Check)
            }
        };
        results.extend(result);
        Ok(())
    }
}

/// Applies all operations, or none if one fails. Returns their results in order.
pub(crate) fn transact(
    state: &mut State,
    operations: &[Operation],
    now: Instant,
    changes: &mut Changes,
) -> Result<Vec<OperationResult>, Vec<OperationError>> {
    let errors = for_each(operations, |operation| operation.validate(state, now));
    if !errors.is_empty() {
        return Err(errors);
    }
    let changes_before = changes.clone();
    let savepoint = state.kv.savepoint();
    let catalog_before = operations
        .iter()
        .any(Operation::writes_catalog)
        .then(|| state.catalog.clone());
    let mut results = Vec::new();
    let errors = for_each(operations, |operation| {
        operation.apply(state, &mut results, changes)
    });
    if errors.is_empty() {
        state.kv.commit();
        return Ok(results);
    }
    state.kv.roll_back(&savepoint);
    if let Some(catalog) = catalog_before {
        state.catalog = catalog;
    }
    *changes = changes_before;
    Err(errors)
}

/// Calls `act` with every operation and collects the errors.
fn for_each(
    operations: &[Operation],
    mut act: impl FnMut(&Operation) -> Result<(), String>,
) -> Vec<OperationError> {
    let errors = operations.iter().enumerate().filter_map(|(i, operation)| {
        let message = act(operation).err()?;
        Some(OperationError {
            operation: i,
            message,
        })
    });
    errors.collect()
}
