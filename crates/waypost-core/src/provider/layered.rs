//! A provider that combines several others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{BoxStream, select_all};
use futures_util::{FutureExt, StreamExt, stream};

use super::traits::{CheckResult, NamesWatch, Provider, Registry, ServiceAnswer, Watch};
use crate::error::ProviderError;
use crate::model::{InstanceId, Invalid, ServiceName};
use crate::supervision::{ProviderStatus, WatchSupervisor};

/// Combines several providers, in order of precedence.
///
/// A failing layer doesn't affect the others. Its last answer stays in use, and its error is passed
/// on, so that the directory marks the snapshot as stale. A look-up ends with the first error, so an
/// error is held back until there is an answer, or every layer has answered or failed. Registrations
/// go to the first layer that is a registry.
///
/// ```
/// # use waypost_core::provider::{FallbackProvider, LayerPolicy, LayeredProvider, MemoryProvider};
/// let providers = LayeredProvider::new(LayerPolicy::FirstKnown)
///     .layer(MemoryProvider::new())
///     .layer(FallbackProvider::new("http://localhost:8000")?);
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayeredProvider {
    policy: LayerPolicy,
    layers: Vec<(Arc<dyn Provider>, Arc<WatchSupervisor>)>,
}

/// How a [`LayeredProvider`] combines the answers of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LayerPolicy {
    /// The answer is that of the first layer that has an instance of the service.
    #[default]
    FirstKnown,
    /// The answer holds the instances of all layers. If several layers have the same id, the first
    /// one is used.
    Merge,
}

impl LayeredProvider {
    /// A provider without layers.
    pub fn new(policy: LayerPolicy) -> Self {
        Self {
            policy,
            layers: Vec::new(),
        }
    }

    /// Adds a provider as the last layer.
    #[must_use]
    pub fn layer(self, provider: impl Provider) -> Self {
        self.shared_layer(Arc::new(provider))
    }

    /// Adds a shared provider as the last layer.
    #[must_use]
    pub fn shared_layer(mut self, provider: Arc<dyn Provider>) -> Self {
        let supervisor = WatchSupervisor::new(provider.describe());
        self.layers.push((provider, supervisor));
        self
    }

    /// Watches all layers. Whenever one of them answers or fails, `combine` makes one answer from the
    /// states of all; `None` means that there is no answer yet.
    fn combined<T, U>(
        &self,
        subject: &str,
        subscribe: impl Fn(&dyn Provider) -> BoxStream<'static, Result<T, ProviderError>>
        + Clone
        + Send
        + 'static,
        combine: impl Fn(&[LayerState<T>]) -> Option<U> + Send + 'static,
    ) -> BoxStream<'static, Result<U, ProviderError>>
    where
        T: Send + 'static,
        U: PartialEq + Clone + Send + 'static,
    {
        let watches = self.layers.iter().enumerate().map(|(index, layer)| {
            let (provider, supervisor) = layer;
            let provider = Arc::clone(provider);
            let subscribe = subscribe.clone();
            // A layer that ends must not end the combined stream, so each one is restarted.
            supervisor
                .supervise(subject, move || subscribe(&*provider))
                .map(move |item| (index, item))
        });
        let mut layers: Vec<_> = self.layers.iter().map(|_| LayerState::default()).collect();
        let mut last_sent = None;
        select_all(watches.collect::<Vec<_>>())
            .flat_map(move |(index, item)| {
                let recovered = layers[index].record(item);
                let answer = combine(&layers)
                    .filter(|answer| recovered || last_sent.as_ref() != Some(answer));
                if answer.is_some() {
                    last_sent.clone_from(&answer);
                }
                // While any layer fails, the combined answer may be out of date. An error without an
                // answer ends a look-up, so it waits for the layers that may still answer.
                let may_fail = last_sent.is_some() || layers.iter().all(LayerState::is_settled);
                let error =
                    (layers.iter().find_map(|layer| layer.error.clone())).filter(|_| may_fail);
                stream::iter(answer.map(Ok).into_iter().chain(error.map(Err)))
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
        let separator = match self.policy {
            LayerPolicy::FirstKnown => ", else ",
            LayerPolicy::Merge => " and ",
        };
        layers.join(separator).into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let service = service.clone();
        let policy = self.policy;
        self.combined(
            service.clone().as_str(),
            move |provider| provider.watch(&service),
            move |layers| match policy {
                LayerPolicy::FirstKnown => first_known(layers),
                LayerPolicy::Merge => merged(layers),
            },
        )
    }

    fn watch_names(&self) -> NamesWatch {
        self.combined(
            "the list of services",
            |provider| provider.watch_names(),
            |layers: &[LayerState<BTreeSet<ServiceName>>]| {
                all_settled(layers).then(|| {
                    let names = layers.iter().filter_map(|layer| layer.answer.as_ref());
                    names.flatten().cloned().collect()
                })
            },
        )
    }

    fn ignored_names(&self) -> Vec<Invalid> {
        let layers = self.layers.iter();
        layers
            .flat_map(|(layer, _)| layer.ignored_names())
            .collect()
    }

    fn layer_status(&self) -> Vec<ProviderStatus> {
        let all = self.layers.iter().flat_map(|(layer, supervisor)| {
            std::iter::once(supervisor.status()).chain(layer.layer_status())
        });
        all.collect()
    }

    fn check_results<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> BoxFuture<'a, Result<Vec<CheckResult>, ProviderError>> {
        let each = self
            .layers
            .iter()
            .map(|(layer, _)| layer.check_results(service));
        // A layer that fails must not hide what the others know.
        join_all(each)
            .map(|results| Ok(results.into_iter().flatten().flatten().collect()))
            .boxed()
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
            format!("no layer is a registry: {}", refusals.join("; ")),
        ))
    }
}

/// The state of one layer.
struct LayerState<T> {
    /// The last answer.
    answer: Option<T>,
    /// The current failure.
    error: Option<ProviderError>,
}

impl<T> Default for LayerState<T> {
    fn default() -> Self {
        Self {
            answer: None,
            error: None,
        }
    }
}

impl<T> LayerState<T> {
    /// Records an answer or a failure. Returns whether it ends a failure.
    fn record(&mut self, item: Result<T, ProviderError>) -> bool {
        match item {
            Ok(answer) => {
                self.answer = Some(answer);
                self.error.take().is_some()
            }
            Err(error) => {
                self.error = Some(error);
                false
            }
        }
    }

    /// Whether the layer has answered or failed, so that there is no need to wait for it.
    fn is_settled(&self) -> bool {
        self.answer.is_some() || self.error.is_some()
    }
}

/// Whether every layer has answered or failed, and at least one has answered.
fn all_settled<T>(layers: &[LayerState<T>]) -> bool {
    layers.iter().all(LayerState::is_settled) && layers.iter().any(|layer| layer.answer.is_some())
}

/// The answer of the first layer with instances. A layer that hasn't settled is waited for, because it
/// has precedence over those after it.
fn first_known(layers: &[LayerState<ServiceAnswer>]) -> Option<ServiceAnswer> {
    let mut known_but_empty = false;
    for layer in layers {
        if !layer.is_settled() {
            return None;
        }
        match &layer.answer {
            Some(ServiceAnswer::Instances(instances)) if !instances.is_empty() => {
                return Some(ServiceAnswer::Instances(instances.clone()));
            }
            Some(ServiceAnswer::Instances(_)) => known_but_empty = true,
            Some(ServiceAnswer::Unknown) | None => {}
        }
    }
    if known_but_empty {
        return Some(ServiceAnswer::Instances(Vec::new()));
    }
    // The service is unknown only if every layer says so.
    let any_answered = layers.iter().any(|layer| layer.answer.is_some());
    (any_answered && none_failing(layers)).then_some(ServiceAnswer::Unknown)
}

/// The instances of all layers, each id once.
fn merged(layers: &[LayerState<ServiceAnswer>]) -> Option<ServiceAnswer> {
    if !all_settled(layers) {
        return None;
    }
    let mut known = false;
    let mut by_id: BTreeMap<InstanceId, _> = BTreeMap::new();
    for layer in layers {
        if let Some(ServiceAnswer::Instances(instances)) = &layer.answer {
            known = true;
            for instance in instances {
                let entry = by_id.entry(instance.id().clone());
                entry.or_insert_with(|| Arc::clone(instance));
            }
        }
    }
    if known {
        return Some(ServiceAnswer::Instances(by_id.into_values().collect()));
    }
    none_failing(layers).then_some(ServiceAnswer::Unknown)
}

fn none_failing<T>(layers: &[LayerState<T>]) -> bool {
    layers.iter().all(|layer| layer.error.is_none())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

    use super::*;
    use crate::model::Instance;
    use crate::provider::MemoryProvider;

    /// Always fails.
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

    fn memory_with(ids: &[&str]) -> MemoryProvider {
        let memory = MemoryProvider::new();
        for id in ids {
            memory.insert(instance(id));
        }
        memory
    }

    async fn next(watch: &mut Watch) -> Result<String, ProviderError> {
        watch.next().await.unwrap().map(|answer| match answer {
            ServiceAnswer::Instances(instances) => {
                let ids: Vec<_> = instances.iter().map(|i| i.id().as_str()).collect();
                ids.join(" ")
            }
            ServiceAnswer::Unknown => "unknown".into(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_layer_with_an_instance_answers() {
        let (upper, lower) = (memory_with(&[]), memory_with(&["low"]));
        let layered = LayeredProvider::new(LayerPolicy::FirstKnown)
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
    async fn each_layer_and_each_layer_of_a_layer_has_a_status() {
        let inner = LayeredProvider::new(LayerPolicy::Merge)
            .layer(memory_with(&["a"]))
            .layer(Down);
        let layered = LayeredProvider::new(LayerPolicy::FirstKnown)
            .layer(Down)
            .layer(inner);
        let mut watch = layered.watch(&auth());
        while next(&mut watch).await.is_err() {}
        let status = layered.layer_status();
        let failing: Vec<_> = status
            .iter()
            .map(|it| (it.provider().to_owned(), it.failing()))
            .collect();
        assert_eq!(failing.len(), 4, "{failing:?}");
        assert_eq!(failing[0], ("down".to_owned(), 1));
        assert_eq!(failing[3], ("down".to_owned(), 1));
        assert!(memory_with(&[]).layer_status().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn merge_takes_each_id_from_the_first_layer_that_has_it() {
        let layered = LayeredProvider::new(LayerPolicy::Merge)
            .layer(memory_with(&["a", "b"]))
            .layer(memory_with(&["b", "c"]));
        let mut watch = layered.watch(&auth());
        assert_eq!(next(&mut watch).await.unwrap(), "a b c");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_layer_leaves_the_answer_of_the_others_and_its_error_is_passed_on() {
        for policy in [LayerPolicy::FirstKnown, LayerPolicy::Merge] {
            let layered = LayeredProvider::new(policy)
                .layer(Down)
                .layer(memory_with(&["a"]));
            let mut watch = layered.watch(&auth());
            let mut items = vec![next(&mut watch).await];
            while items.last().unwrap().is_err() {
                items.push(next(&mut watch).await);
            }
            assert_eq!(items.pop().unwrap().unwrap(), "a", "{policy:?}");
            assert!(next(&mut watch).await.is_err(), "{policy:?}");
        }
    }

    /// Yields the answers and failures that are sent to it.
    #[derive(Debug)]
    struct Scripted(std::sync::Mutex<Option<UnboundedReceiver<Item>>>);

    /// The ids of an answer, or a failure.
    type Item = Result<Vec<&'static str>, ()>;

    impl Scripted {
        fn new() -> (UnboundedSender<Result<Vec<&'static str>, ()>>, Self) {
            let (sender, receiver) = mpsc::unbounded_channel();
            (sender, Self(std::sync::Mutex::new(Some(receiver))))
        }
    }

    impl Scripted {
        fn follow<T: Send + 'static>(
            &self,
            answer: impl Fn(Vec<&'static str>) -> T + Send + 'static,
        ) -> BoxStream<'static, Result<T, ProviderError>> {
            let Some(mut receiver) = self.0.lock().unwrap().take() else {
                return stream::pending().boxed();
            };
            stream::poll_fn(move |context| receiver.poll_recv(context))
                .map(move |item| match item {
                    Ok(ids) => Ok(answer(ids)),
                    Err(()) => Err(ProviderError::unreachable("scripted", "refused")),
                })
                .boxed()
        }
    }

    impl Provider for Scripted {
        fn describe(&self) -> Arc<str> {
            "scripted".into()
        }

        fn watch(&self, _: &ServiceName) -> Watch {
            self.follow(|ids| {
                let instances = ids.into_iter().map(|id| Arc::new(instance(id)));
                ServiceAnswer::Instances(instances.collect())
            })
        }

        fn watch_names(&self) -> NamesWatch {
            self.follow(|ids| {
                let names = ids.into_iter().map(|id| ServiceName::new(id).unwrap());
                names.collect()
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_passed_on_only_after_every_layer_has_settled() {
        for policy in [LayerPolicy::FirstKnown, LayerPolicy::Merge] {
            for failing in 0..3 {
                let (senders, scripts): (Vec<_>, Vec<_>) =
                    std::iter::repeat_with(Scripted::new).take(3).unzip();
                let layers = LayeredProvider::new(policy);
                let layers = scripts.into_iter().fold(layers, LayeredProvider::layer);
                let mut watch = layers.watch(&auth());
                for (index, sender) in senders.iter().enumerate().rev() {
                    assert!(
                        watch.next().now_or_never().is_none(),
                        "{policy:?} {failing}"
                    );
                    let item = if index == failing {
                        Err(())
                    } else {
                        Ok(vec![])
                    };
                    sender.send(item).unwrap();
                }
                // A layer without instances before a failing one: known, but empty.
                let first = next(&mut watch).await;
                assert_eq!(first.unwrap(), "", "{policy:?} {failing}");
                assert!(next(&mut watch).await.is_err(), "{policy:?} {failing}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_of_names_waits_for_every_layer_before_it_fails() {
        let (upper, first) = Scripted::new();
        let (lower, second) = Scripted::new();
        let layers = LayeredProvider::new(LayerPolicy::FirstKnown);
        let mut names = layers.layer(first).layer(second).watch_names();
        upper.send(Err(())).unwrap();
        assert!(names.next().now_or_never().is_none());
        lower.send(Ok(vec!["auth"])).unwrap();
        let answer = names.next().await.unwrap().unwrap();
        assert_eq!(answer, BTreeSet::from([auth()]));
        assert!(names.next().await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_after_an_answer_is_passed_on_at_once() {
        let (upper, first) = Scripted::new();
        let (_lower, second) = Scripted::new();
        let layers = LayeredProvider::new(LayerPolicy::FirstKnown);
        let mut watch = layers.layer(first).layer(second).watch(&auth());
        upper.send(Ok(vec!["a"])).unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), "a");
        upper.send(Err(())).unwrap();
        assert!(next(&mut watch).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_unknown_only_if_every_layer_says_so() {
        let layered = LayeredProvider::new(LayerPolicy::FirstKnown)
            .layer(Down)
            .layer(memory_with(&[]));
        let mut watch = layered.watch(&auth());
        for _ in 0..5 {
            assert!(next(&mut watch).await.is_err());
        }
        let both = LayeredProvider::new(LayerPolicy::FirstKnown)
            .layer(memory_with(&[]))
            .layer(memory_with(&[]));
        assert_eq!(next(&mut both.watch(&auth())).await.unwrap(), "unknown");
    }
}
