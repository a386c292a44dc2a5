//! What a cluster does with the manifests, done here with real processes and a stand-in for the API
//! server: rights, tokens, pods, endpoints, probes, and the end in its time.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_testkit::free_ports;

use super::documents::*;
use super::kubernetes::{BASE, number_of};
use crate::support::*;

const NAMESPACE: &str = "waypost";

#[tokio::test]
async fn the_stack_works_as_its_manifests_say() {
    let cluster = Cluster::start().await;
    let documents = documents(BASE);
    cluster.apply(&documents);
    let mut pods: Vec<Pod> = documents
        .iter()
        .filter_map(Document::pods)
        .map(|(name, template)| cluster.start_pod(name, template.spec.as_ref().unwrap()))
        .collect();
    for pod in &pods {
        pod.answers_its_probes().await;
        cluster.add_endpoint(pod);
    }

    let port = |name: &str| pods.iter().find(|pod| pod.name == name).unwrap().port;
    for (who, path) in [
        ("api-gateway", "/ai-models/api/models"),
        ("ui", "/api/models"),
    ] {
        let url = format!("http://127.0.0.1:{}{path}", port(who));
        eventually(&format!("{who} finds the models: {url}"), async || {
            let reply = http().get(&url).send().await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
    }
    eventually(
        "what is known is kept for a container that starts again",
        async || pods[0].state.join("snapshot.json").exists().then_some(()),
    )
    .await;

    for pod in &mut pods {
        let output = pod.program.output();
        assert!(!output.contains("WARN"), "{}: {output}", pod.name);
        pod.ends_in_its_time().await;
    }
}

/// Rights that are missing stop a rollout: the gateway isn't ready before it knows its routes.
#[tokio::test]
async fn a_gateway_without_its_role_is_not_ready_and_says_what_it_lacks() {
    let cluster = Cluster::start().await;
    let documents = documents(BASE);
    let mut workloads = documents.iter().filter_map(Document::pods);
    let (name, template) = workloads.find(|(name, _)| *name == "api-gateway").unwrap();
    let mut pod = cluster.start_pod(name, template.spec.as_ref().unwrap());
    pod.program.says("name: waypost-discovery").await;
    assert_eq!(pod.status("/readyz").await, Some(503));
    assert_eq!(pod.status("/livez").await, Some(200));

    cluster.apply(&documents);
    pod.answers_its_probes().await;
    pod.ends_in_its_time().await;
}

struct Cluster {
    server: ApiServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let server = ApiServer::builder()
            .namespace(NAMESPACE)
            .allow_loopback(true);
        Self {
            server: server.start().await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Takes over what is for the API server alone, in our namespace as the overlay puts it.
    fn apply(&self, documents: &[Document]) {
        for document in documents {
            let mut object: Value = match document {
                Document::Role(role) => json!(role),
                Document::RoleBinding(binding) => json!(binding),
                Document::Service(service) => json!(service),
                _ => continue,
            };
            object["metadata"]["namespace"] = NAMESPACE.into();
            for subject in object["subjects"].as_array_mut().into_iter().flatten() {
                subject["namespace"] = NAMESPACE.into();
            }
            self.server.put(&object);
        }
    }

    /// Starts the pod's container with its arguments and variables, on a port that is free here.
    fn start_pod(&self, name: &str, spec: &PodSpec) -> Pod {
        let container = &spec.containers[0];
        let [port] = free_ports();
        let written = number_of(container, &IntOrString::String("http".into())).to_string();
        let here = |argument: &String| match *argument == written {
            true => port.to_string(),
            false => argument.clone(),
        };
        let arguments: Vec<_> = container.args.iter().flatten().map(here).collect();
        assert!(
            arguments.contains(&port.to_string()),
            "it listens on {written}"
        );
        let mut command = waypost(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let state = self.folder.path().join(format!("state-{name}"));
        fs::create_dir(&state).unwrap();
        for variable in container.env.iter().flatten() {
            let value = variable.value.as_deref().unwrap_or_default();
            let state = state.display().to_string();
            command.env(&variable.name, value.replace("/var/lib/waypost", &state));
        }
        self.as_in_a_pod(&mut command, name, spec);
        Pod {
            name: name.to_owned(),
            port,
            container: container.clone(),
            grace: spec
                .termination_grace_period_seconds
                .unwrap()
                .unsigned_abs(),
            state,
            program: Program::start(command),
        }
    }

    /// What Kubernetes gives to every pod, with a token if the pod wants one.
    fn as_in_a_pod(&self, command: &mut Command, name: &str, spec: &PodSpec) {
        let account = self.folder.path().join(format!("account-{name}"));
        let address = self.server.address();
        command
            .env("KUBERNETES_SERVICE_HOST", address.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", address.port().to_string())
            .env("WAYPOST_SERVICE_ACCOUNT_DIR", &account);
        if spec.automount_service_account_token != Some(true) {
            return;
        }
        let who = spec.service_account_name.as_deref().unwrap();
        let user = format!("system:serviceaccount:{NAMESPACE}:{who}");
        let token = self.server.add_user(&user).unwrap();
        fs::create_dir(&account).unwrap();
        fs::write(account.join("token"), token).unwrap();
        fs::write(account.join("ca.crt"), self.server.ca_pem()).unwrap();
        fs::write(account.join("namespace"), NAMESPACE).unwrap();
    }

    fn add_endpoint(&self, pod: &Pod) {
        let name = &pod.name;
        let endpoint = manifest::pod("127.0.0.1", &format!("{name}-x"), "node", "zone");
        let slice = format!("{name}-slice");
        let slice = manifest::slice(NAMESPACE, name, &slice, &[("http", pod.port)], [endpoint]);
        self.server.put(&slice);
    }
}

struct Pod {
    name: String,
    port: u16,
    container: Container,
    grace: u64,
    state: PathBuf,
    program: Program,
}

impl Pod {
    async fn answers_its_probes(&self) {
        let container = &self.container;
        for probe in [
            &container.startup_probe,
            &container.liveness_probe,
            &container.readiness_probe,
        ] {
            let action = probe.as_ref().unwrap().http_get.as_ref().unwrap();
            assert_eq!(action.port, IntOrString::String("http".into()));
            let path = action.path.as_deref().unwrap();
            eventually(&format!("{}: {path}", self.name), async || {
                (self.status(path).await == Some(200)).then_some(())
            })
            .await;
        }
    }

    async fn status(&self, path: &str) -> Option<u16> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let reply = http().get(url).send().await.ok()?;
        Some(reply.status().as_u16())
    }

    async fn ends_in_its_time(&mut self) {
        signal(self.program.pid(), Signal::TERM);
        let ended = timeout(Duration::from_secs(self.grace), self.program.ends()).await;
        assert_eq!(
            ended,
            Ok(Some(0)),
            "{}: {}",
            self.name,
            self.program.output()
        );
    }
}
