//! The conformance suite on the providers of this crate, and on one that doesn't conform.

#![allow(clippy::unwrap_used)] // a panic fails the test

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use waypost_core::conformance::{Capabilities, CaseResult, Harness};
use waypost_core::provider::{
    EnvProvider, MemoryProvider, NamesWatch, Provider, ServiceAnswer, StaticProvider, Watch,
};
use waypost_core::{Environment, Instance, ProviderError, ServiceName, conformance};

#[tokio::test]
async fn the_memory_provider_conforms() {
    assert_conforms(&MemoryHarness::default(), 2).await;
}

#[tokio::test]
async fn the_environment_provider_conforms() {
    assert_conforms(&EnvHarness::default(), 7).await;
}

#[tokio::test]
async fn the_file_provider_conforms() {
    let harness = FileHarness {
        directory: tempfile::tempdir().unwrap(),
        content: Mutex::default(),
    };
    assert_conforms(&harness, 0).await;
}

/// The features of a provider such as DNS or a list of URLs.
#[tokio::test(start_paused = true)]
async fn a_provider_that_knows_only_addresses_conforms() {
    assert_conforms(&AddressesHarness::default(), 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_failures_look_like_empty_answers_does_not_conform() {
    let report = conformance::run(&ForgetfulHarness::default()).await;
    let failed: Vec<_> = report
        .cases()
        .filter(|(_, result)| matches!(result, CaseResult::Failed(_)))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        failed,
        ["a failure is an error, never an answer"],
        "{report}"
    );
}

async fn assert_conforms(harness: &dyn Harness, expected_skips: usize) {
    let report = conformance::run(harness).await;
    report.assert();
    let skipped = report
        .cases()
        .filter(|(_, result)| **result == CaseResult::Skipped);
    assert_eq!(skipped.count(), expected_skips, "{report}");
}

#[derive(Default)]
struct MemoryHarness {
    provider: MemoryProvider,
    /// The services that were published before.
    services: Mutex<Vec<ServiceName>>,
}

impl Harness for MemoryHarness {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all().without_faults()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.provider.clone())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        let mut services = self.services.lock().unwrap();
        let mut instances: BTreeMap<ServiceName, Vec<Instance>> =
            services.drain(..).map(|name| (name, Vec::new())).collect();
        for instance in content {
            let service = instance.service().clone();
            instances.entry(service).or_default().push(instance);
        }
        for (service, instances) in instances {
            self.provider.replace(&service, instances);
            services.push(service);
        }
        async {}.boxed()
    }
}

#[derive(Default)]
struct EnvHarness {
    variables: Mutex<Environment>,
}

impl Harness for EnvHarness {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
            .without_faults()
            .without_changes()
            .single_address()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(EnvProvider::new(&self.variables.lock().unwrap()))
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        let variable = |instance: &Instance| {
            let name = instance.service().as_str().to_uppercase().replace('-', "_");
            (format!("SERVICE_{name}_URL"), instance.url().to_owned())
        };
        *self.variables.lock().unwrap() = content.iter().map(variable).collect();
        async {}.boxed()
    }
}

struct FileHarness {
    directory: TempDir,
    content: Mutex<String>,
}

impl FileHarness {
    fn path(&self) -> PathBuf {
        self.directory.path().join("services.json")
    }
}

impl Harness for FileHarness {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(StaticProvider::open(self.path()).unwrap())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        let mut services: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for instance in &content {
            let instances = services.entry(instance.service().as_str()).or_default();
            instances.push(json!({
                "id": instance.id(), "url": instance.url(), "version": instance.version(),
                "tags": instance.tags().collect::<Vec<_>>(), "weight": instance.weight(),
                "metadata": instance.metadata().collect::<BTreeMap<_, _>>(),
            }));
        }
        let services: BTreeMap<_, _> = services
            .into_iter()
            .map(|(service, instances)| (service, json!({ "instances": instances })))
            .collect();
        *self.content.lock().unwrap() = json!(services).to_string();
        self.clear_fault()
    }

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        fs::write(self.path(), "{ not JSON").unwrap();
        async {}.boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        fs::write(self.path(), &*self.content.lock().unwrap()).unwrap();
        async {}.boxed()
    }
}

/// A provider that doesn't conform: while it is down, it says that every service is unknown.
#[derive(Clone, Debug, Default)]
struct ForgetfulProvider {
    memory: MemoryProvider,
    is_down: watch::Sender<bool>,
}

impl Provider for ForgetfulProvider {
    fn describe(&self) -> Arc<str> {
        "forgetful".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let answers = self.memory.watch(service);
        let outage = stream::unfold(self.is_down.subscribe(), |mut is_down| async move {
            is_down.wait_for(|is_down| *is_down).await.ok()?;
            Some((Ok(ServiceAnswer::Unknown), is_down))
        });
        stream::select(answers, outage.take(1)).boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        self.memory.watch_names()
    }
}

#[derive(Default)]
struct ForgetfulHarness {
    memory: MemoryHarness,
    is_down: watch::Sender<bool>,
}

impl Harness for ForgetfulHarness {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(ForgetfulProvider {
            memory: self.memory.provider.clone(),
            is_down: self.is_down.clone(),
        })
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        self.memory.publish(content)
    }

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        self.is_down.send_replace(true);
        async {}.boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        self.is_down.send_replace(false);
        async {}.boxed()
    }
}

/// A provider that has only addresses, reports only changes of these, and can't list names.
#[derive(Debug)]
struct AddressesProvider(MemoryProvider);

impl Provider for AddressesProvider {
    fn describe(&self) -> Arc<str> {
        "a list of addresses".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let service = service.clone();
        let mut last = None;
        let answers = self.0.watch(&service).map(move |item| match item {
            Ok(ServiceAnswer::Instances(instances)) => {
                let bare = instances.iter().map(|instance| {
                    let (host, port) = (instance.host().clone(), instance.port());
                    Arc::new(
                        Instance::builder(service.clone(), host, port)
                            .build()
                            .unwrap(),
                    )
                });
                Ok(ServiceAnswer::Instances(bare.collect()))
            }
            item => item,
        });
        let changes = answers.filter(move |item| {
            let answer = item.as_ref().ok().cloned();
            let is_new = answer != last;
            last = answer;
            std::future::ready(is_new)
        });
        changes.boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let error = ProviderError::unsupported(self.describe(), "services can't be listed");
        stream::iter([Err(error)]).boxed()
    }
}

#[derive(Default)]
struct AddressesHarness(MemoryHarness);

impl Harness for AddressesHarness {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().addresses_only().without_names()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(AddressesProvider(self.0.provider.clone()))
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        self.0.publish(content)
    }
}
