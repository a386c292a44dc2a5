use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{Answer, NamesWatch, Provider, Watch};
use crate::model::{Instance, InstanceBuilder, Invalid, ServiceName};

/// One address for every name: the last layer under providers that may know nothing.
///
/// With `ENVIRONMENT=development` Waypost's settings add one for
/// `http://localhost:8000`, where the gateway listens, under the chosen provider, so that a
/// developer's program runs before its registry does.
#[derive(Clone, Debug)]
pub struct FallbackProvider {
    builder: InstanceBuilder,
    url: Arc<str>,
}

impl FallbackProvider {
    /// The address in development: the gateway's on this machine.
    pub const LOCALHOST: &'static str = "http://localhost:8000";

    /// Answers every name with the instance at this URL.
    pub fn new(url: &str) -> Result<Self, Invalid> {
        let placeholder = ServiceName::new("fallback")?;
        let builder = Instance::from_url(placeholder, url)?;
        Ok(Self {
            url: builder.clone().build()?.url().into(),
            builder,
        })
    }

    /// The instance as which a service is answered.
    pub fn instance(&self, service: &ServiceName) -> Result<Instance, Invalid> {
        self.builder.clone().of_service(service.clone()).build()
    }
}

impl Provider for FallbackProvider {
    fn describe(&self) -> Arc<str> {
        format!("fallback to {}", self.url).into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let answer = match self.instance(service) {
            Ok(instance) => Answer::Instances(vec![Arc::new(instance)]),
            Err(_) => Answer::Unknown,
        };
        stream::once(std::future::ready(Ok(answer)))
            .chain(stream::pending())
            .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        stream::once(std::future::ready(Ok(BTreeSet::new())))
            .chain(stream::pending())
            .boxed()
    }
}
