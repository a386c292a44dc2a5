use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{BoxStream, select_all};
use futures_util::{StreamExt, stream};

use super::{Answer, NamesWatch, Provider, Registry, Watch};
use crate::error::ProviderError;
use crate::model::{InstanceId, ServiceName};
use crate::supervision::{ProviderStatus, WatchSupervisor};

/// Several providers as one, in order of precedence.
///
/// A layer that fails takes no other down: as long as a layer has something to say, that is the
/// answer. What a failing layer said last is kept, and its error is passed on, so that the
/// snapshot is marked stale. Registrations go to the first layer that is a registry.
///
/// ```
/// # use waypost_core::provider::{FallbackProvider, LayeredProvider, MemoryProvider, Policy};
/// let providers = LayeredProvider::new(Policy::FirstKnown)
///     .layer(MemoryProvider::new())
///     .layer(FallbackProvider::new("http://localhost:8000")?);
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayeredProvider {
    policy: Policy,
    layers: Vec<(Arc<dyn Provider>, Arc<WatchSupervisor>)>,
}

/// How the answers of several layers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The first layer that knows the service and has an instance of it answers alone.
    #[default]
    FirstKnown,
    /// The instances of all layers together; an id that several name counts from the first.
    Merge,
}

impl LayeredProvider {
    /// No layer yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            layers: Vec::new(),
        }
    }

    /// Adds a layer below those added before.
    #[must_use]
    pub fn layer(self, provider: impl Provider) -> Self {
        self.shared_layer(Arc::new(provider))
    }

    /// Adds a layer below those added before.
    #[must_use]
    pub fn shared_layer(mut self, provider: Arc<dyn Provider>) -> Self {
        let supervisor = WatchSupervisor::new(provider.describe());
        self.layers.push((provider, supervisor));
        self
    }

    /// Watches all layers; whenever one says something, `combine` makes one answer of them all,
    /// or none as long as there is none to give.
    fn combined<T, U>(
        &self,
        subject: &str,
        subscribe: impl Fn(&dyn Provider) -> BoxStream<'static, Result<T, ProviderError>>
        + Clone
        + Send
        + 'static,
        combine: impl Fn(&[Layer<T>]) -> Option<U> + Send + 'static,
    ) -> BoxStream<'static, Result<U, ProviderError>>
    where
        T: Send + 'static,
        U: PartialEq + Clone + Send + 'static,
    {
        let watches = self.layers.iter().enumerate().map(|(index, layer)| {
            let (provider, supervisor) = layer;
            let provider = Arc::clone(provider);
            let subscribe = subscribe.clone();
            // A layer must not end the whole stream, so each is restarted by itself.
            supervisor
                .supervise(subject, move || subscribe(&*provider))
                .map(move |item| (index, item))
        });
        let mut layers: Vec<_> = self.layers.iter().map(|_| Layer::default()).collect();
        let mut told = None;
        select_all(watches.collect::<Vec<_>>())
            .flat_map(move |(index, item)| {
                let recovered = layers[index].take(item);
                let now = combine(&layers);
                let news = now.filter(|now| recovered || told.as_ref() != Some(now));
                if let Some(news) = &news {
                    told = Some(news.clone());
                }
                // What the others say is good, but as long as a layer fails it may be out of date.
                let fault = layers.iter().find_map(|layer| layer.fault.clone());
                stream::iter(news.map(Ok).into_iter().chain(fault.map(Err)))
            })
            .boxed()
    }
}

impl Provider for LayeredProvider {
    fn describe(&self) -> Arc<str> {
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(layer, _)| layer.describe())
            .collect();
        let joint = match self.policy {
            Policy::FirstKnown => ", else ",
            Policy::Merge => " and ",
        };
        layers.join(joint).into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let service = service.clone();
        let policy = self.policy;
        self.combined(
            service.clone().as_str(),
            move |provider| provider.watch(&service),
            move |layers| match policy {
                Policy::FirstKnown => first_known(layers),
                Policy::Merge => merged(layers),
            },
        )
    }

    fn watch_names(&self) -> NamesWatch {
        self.combined(
            "the list of services",
            |provider| provider.watch_names(),
            |layers: &[Layer<BTreeSet<ServiceName>>]| {
                settled(layers).then(|| {
                    let names = layers.iter().filter_map(|layer| layer.said.as_ref());
                    names.flatten().cloned().collect()
                })
            },
        )
    }

    fn layers(&self) -> Vec<ProviderStatus> {
        let all = self.layers.iter().flat_map(|(layer, supervisor)| {
            let below = layer.layers();
            std::iter::once(supervisor.status()).chain(below)
        });
        all.collect()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        let mut refusals = Vec::new();
        for (layer, _) in &self.layers {
            match layer.registry() {
                Ok(registry) => return Ok(registry),
                Err(refusal) => refusals.push(refusal.to_string()),
            }
        }
        Err(ProviderError::unsupported(
            self.describe(),
            format!("none of its layers is a registry: {}", refusals.join("; ")),
        ))
    }
}

/// What one layer said last, and how it fails now.
struct Layer<T> {
    said: Option<T>,
    fault: Option<ProviderError>,
}

impl<T> Default for Layer<T> {
    fn default() -> Self {
        Self {
            said: None,
            fault: None,
        }
    }
}

impl<T> Layer<T> {
    /// Takes in what it says now. Says whether that ends a failure.
    fn take(&mut self, item: Result<T, ProviderError>) -> bool {
        match item {
            Ok(said) => {
                self.said = Some(said);
                self.fault.take().is_some()
            }
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }

    /// Whether it has answered or failed, so that nothing is to be waited for.
    fn is_settled(&self) -> bool {
        self.said.is_some() || self.fault.is_some()
    }
}

fn settled<T>(layers: &[Layer<T>]) -> bool {
    layers.iter().all(Layer::is_settled) && layers.iter().any(|layer| layer.said.is_some())
}

/// The first layer with instances; a layer that hasn't settled is waited for, since it outranks
/// those below it.
fn first_known(layers: &[Layer<Answer>]) -> Option<Answer> {
    let mut known_but_empty = false;
    for layer in layers {
        if !layer.is_settled() {
            return None;
        }
        match &layer.said {
            Some(Answer::Instances(instances)) if !instances.is_empty() => {
                return Some(Answer::Instances(instances.clone()));
            }
            Some(Answer::Instances(_)) => known_but_empty = true,
            Some(Answer::Unknown) | None => {}
        }
    }
    let anybody_answered = layers.iter().any(|layer| layer.said.is_some());
    let nobody_failed = layers.iter().all(|layer| layer.fault.is_none());
    match known_but_empty {
        true => Some(Answer::Instances(Vec::new())),
        // "Unknown" is the answer only if every layer was able to say so.
        false => (anybody_answered && nobody_failed).then_some(Answer::Unknown),
    }
}

fn merged(layers: &[Layer<Answer>]) -> Option<Answer> {
    if !settled(layers) {
        return None;
    }
    let mut known = false;
    let mut by_id: BTreeMap<InstanceId, _> = BTreeMap::new();
    for layer in layers {
        if let Some(Answer::Instances(instances)) = &layer.said {
            known = true;
            for instance in instances {
                let slot = by_id.entry(instance.id().clone());
                slot.or_insert_with(|| Arc::clone(instance));
            }
        }
    }
    let nobody_failed = layers.iter().all(|layer| layer.fault.is_none());
    match known {
        true => Some(Answer::Instances(by_id.into_values().collect())),
        false => nobody_failed.then_some(Answer::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;
    use crate::provider::MemoryProvider;

    /// Fails for ever.
    #[derive(Debug)]
    struct Down;

    impl Provider for Down {
        fn describe(&self) -> Arc<str> {
            "down".into()
        }

        fn watch(&self, _: &ServiceName) -> Watch {
            stream::iter([Err(ProviderError::unreachable("down", "refused"))]).boxed()
        }

        fn watch_names(&self) -> NamesWatch {
            stream::iter([Err(ProviderError::unreachable("down", "refused"))]).boxed()
        }
    }

    fn auth() -> ServiceName {
        ServiceName::new("auth").unwrap()
    }

    fn instance(id: &str) -> Instance {
        Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80)
            .id(id)
            .build()
            .unwrap()
    }

    fn holding(ids: &[&str]) -> MemoryProvider {
        let memory = MemoryProvider::new();
        for id in ids {
            memory.insert(instance(id));
        }
        memory
    }

    async fn next(watch: &mut Watch) -> Result<String, ProviderError> {
        watch.next().await.unwrap().map(|answer| match answer {
            Answer::Instances(instances) => {
                let ids: Vec<_> = instances.iter().map(|i| i.id().as_str()).collect();
                ids.join(" ")
            }
            Answer::Unknown => "unknown".into(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_layer_that_has_an_instance_answers() {
        let (upper, lower) = (holding(&[]), holding(&["low"]));
        let layered = LayeredProvider::new(Policy::FirstKnown)
            .layer(upper.clone())
            .layer(lower.clone());
        let mut watch = layered.watch(&auth());
        assert_eq!(next(&mut watch).await.unwrap(), "low");
        upper.insert(instance("up"));
        assert_eq!(next(&mut watch).await.unwrap(), "up");
        upper.remove(&"up".into());
        assert_eq!(next(&mut watch).await.unwrap(), "low");
        lower.remove(&"low".into());
        assert_eq!(next(&mut watch).await.unwrap(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn merging_takes_each_id_once() {
        let layered = LayeredProvider::new(Policy::Merge)
            .layer(holding(&["a", "b"]))
            .layer(holding(&["b", "c"]));
        let mut watch = layered.watch(&auth());
        assert_eq!(next(&mut watch).await.unwrap(), "a b c");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_layer_takes_no_other_down_and_is_not_silent() {
        for policy in [Policy::FirstKnown, Policy::Merge] {
            let layered = LayeredProvider::new(policy)
                .layer(Down)
                .layer(holding(&["a"]));
            let mut watch = layered.watch(&auth());
            let mut items = vec![next(&mut watch).await];
            while items.last().unwrap().is_err() {
                items.push(next(&mut watch).await);
            }
            assert_eq!(items.pop().unwrap().unwrap(), "a", "{policy:?}");
            assert!(next(&mut watch).await.is_err(), "{policy:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_needs_the_word_of_every_layer() {
        let layered = LayeredProvider::new(Policy::FirstKnown)
            .layer(Down)
            .layer(holding(&[]));
        let mut watch = layered.watch(&auth());
        for _ in 0..5 {
            assert!(next(&mut watch).await.is_err());
        }
        let both = LayeredProvider::new(Policy::FirstKnown)
            .layer(holding(&[]))
            .layer(holding(&[]));
        assert_eq!(next(&mut both.watch(&auth())).await.unwrap(), "unknown");
    }
}
