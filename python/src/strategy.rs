//! Load balancing strategies by name, and weights from a Python function.

use std::panic::resume_unwind;
use std::sync::Arc;

use pyo3::prelude::*;
use waypost::balance::{ConsistentHash, WeightedRandom};
use waypost::{Error, Instance as RustInstance, ServiceDiscoveryClient};

use crate::errors;
use crate::instance::Instance;

/// The strategy of a client.
pub(crate) enum StrategyChoice {
    Named(String),
    /// Random choice by the weights that a function returns.
    WeightedBy(Arc<Py<PyAny>>),
    /// Consistent hashing with bounded loads.
    ConsistentHash(f64),
}

impl StrategyChoice {
    pub(crate) fn apply(&self, client: &ServiceDiscoveryClient) -> Result<(), Error> {
        match self {
            Self::Named(name) => return client.set_strategy_named(name),
            Self::WeightedBy(function) => {
                let function = Arc::clone(function);
                client.set_strategy(move || {
                    let function = Arc::clone(&function);
                    WeightedRandom::by(move |instance| weight_of(&function, instance))
                });
            }
            Self::ConsistentHash(bound) => {
                let bound = *bound;
                client.set_strategy(move || ConsistentHash::new().with_bound(bound));
            }
        }
        Ok(())
    }
}

/// The weight that a function returns. If it raises, the exception is logged and the balancer uses the
/// weights in the registry.
fn weight_of(function: &Py<PyAny>, instance: &RustInstance) -> f64 {
    let called = Python::try_attach(|py| {
        let argument = Instance::new(Arc::new(instance.clone()));
        let weight = function
            .call1(py, (argument,))
            .and_then(|weight| weight.extract(py));
        weight.map_err(|error| errors::describe(py, &error))
    });
    let message = match called {
        Some(Ok(weight)) => return weight,
        Some(Err(message)) => message,
        None => "the program is ending".to_owned(),
    };
    tracing::error!(
        service = %instance.service(),
        instance = %instance.id(),
        error = message,
        "the weight function failed, using the weights in the registry"
    );
    // The balancer catches this. Unlike `panic!`, it prints nothing; the error is logged above.
    resume_unwind(Box::new(message))
}
