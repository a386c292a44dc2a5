//! A provider that resolves every name to one address.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::traits::{NamesWatch, Provider, ServiceAnswer, Watch};
use crate::model::{Instance, InstanceBuilder, Invalid, ServiceName};

/// Resolves every name to the same address. Use it as the last layer of a
/// [`LayeredProvider`](crate::provider::LayeredProvider).
///
/// With `ENVIRONMENT=development`, Waypost's settings add one for `http://localhost:8000`, where the
/// gateway listens, below the chosen provider, so that a developer's program runs before its registry
/// does.
#[derive(Clone, Debug)]
pub struct FallbackProvider {
    builder: InstanceBuilder,
    url: Arc<str>,
}

impl FallbackProvider {
    /// The address used in development: the gateway on this machine.
    pub const LOCALHOST: &'static str = "http://localhost:8000";

    /// Resolves every name to the instance at this URL.
    ///
    /// # Errors
    /// If the URL is not that of an instance; see [`Instance::from_url`].
    pub fn new(url: &str) -> Result<Self, Invalid> {
        let placeholder = ServiceName::new("fallback")?;
        let builder = Instance::from_url(placeholder, url)?;
        Ok(Self {
            url: builder.clone().build()?.url().into(),
            builder,
        })
    }

    /// The instance that `service` is resolved to.
    ///
    /// # Errors
    /// None in practice: the URL was validated by [`new`](Self::new).
    pub fn instance(&self, service: &ServiceName) -> Result<Instance, Invalid> {
        self.builder.clone().service(service.clone()).build()
    }
}

impl Provider for FallbackProvider {
    fn describe(&self) -> Arc<str> {
        format!("fallback to {}", self.url).into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let answer = match self.instance(service) {
            Ok(instance) => ServiceAnswer::Instances(vec![Arc::new(instance)]),
            Err(_) => ServiceAnswer::Unknown,
        };
        stream::iter([Ok(answer)]).chain(stream::pending()).boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let names = BTreeSet::new();
        stream::iter([Ok(names)]).chain(stream::pending()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn every_name_leads_to_the_same_address_and_none_is_listed() {
        let fallback = FallbackProvider::new("http://gateway:8000/v1").unwrap();
        assert_eq!(&*fallback.describe(), "fallback to http://gateway:8000/v1");
        for name in ["auth", "billing"] {
            let service = ServiceName::new(name).unwrap();
            let answer = fallback
                .watch(&service)
                .next()
                .now_or_never()
                .flatten()
                .unwrap();
            let Ok(ServiceAnswer::Instances(instances)) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(instances.len(), 1);
            assert_eq!(instances[0].url(), "http://gateway:8000/v1");
            assert_eq!(instances[0].service(), &service);
        }
        let names = fallback.watch_names().next().now_or_never().flatten();
        assert!(names.unwrap().unwrap().is_empty());
        assert!(FallbackProvider::new("gateway").is_err());
    }
}
