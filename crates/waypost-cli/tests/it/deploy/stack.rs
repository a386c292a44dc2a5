//! Runs the pods of the manifests as processes against a fake API server: RBAC, tokens, endpoints,
//! probes, and termination within the grace period.

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

use super::manifests::*;
use crate::support::*;

const NAMESPACE: &str = "waypost";

#[tokio::test]
async fn the_stack_runs_as_its_manifests_configure_it() {
    let cluster = Cluster::start().await;
    let documents = documents(BASE);
    cluster.apply(&documents);
    let mut pods: Vec<Pod> = documents
        .iter()
        .filter_map(Document::pod_template)
        .map(|(name, template)| cluster.start_pod(name, template.spec.as_ref().unwrap()))
        .collect();
    for pod in &pods {
        pod.wait_for_probes().await;
        cluster.add_endpoint(pod);
    }

    let port = |name: &str| pods.iter().find(|pod| pod.name == name).unwrap().port;
    for (name, path) in [
        ("api-gateway", "/ai-models/api/models"),
        ("ui", "/api/models"),
    ] {
        let url = format!("http://127.0.0.1:{}{path}", port(name));
        eventually(&format!("{url} responds"), async || {
            let response = http().get(&url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }
    eventually("the snapshot file is written", async || {
        let file = pods[0].state.join("snapshot.json");
        file.exists().then_some(())
    })
    .await;

    for pod in &mut pods {
        let output = pod.program.output();
        assert!(!output.contains("WARN"), "{}: {output}", pod.name);
        pod.terminate().await;
    }
}

/// A gateway is not ready until it has its routes, so missing permissions stop a rollout.
#[tokio::test]
async fn a_gateway_without_its_role_is_not_ready_and_logs_the_missing_role() {
    let cluster = Cluster::start().await;
    let documents = documents(BASE);
    let mut workloads = documents.iter().filter_map(Document::pod_template);
    let (name, template) = workloads.find(|(name, _)| *name == "api-gateway").unwrap();
    let mut pod = cluster.start_pod(name, template.spec.as_ref().unwrap());
    pod.program.wait_for_output("name: waypost-discovery").await;
    assert_eq!(pod.status("/readyz").await, Some(503));
    assert_eq!(pod.status("/livez").await, Some(200));

    cluster.apply(&documents);
    pod.wait_for_probes().await;
    pod.terminate().await;
}

struct Cluster {
    server: ApiServer,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let server = ApiServer::builder().namespace(NAMESPACE);
        Self {
            server: server.start().await.unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Applies the objects that only the API server handles, in the namespace set by the overlay.
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

    /// Starts the pod's container with its arguments and variables, on a free port.
    fn start_pod(&self, name: &str, spec: &PodSpec) -> Pod {
        let container = &spec.containers[0];
        let [port] = free_ports();
        let port = port.to_string();
        let manifest_port = port_number(container, &IntOrString::String("http".into())).to_string();
        let replace_port = |argument: &String| {
            if *argument == manifest_port {
                port.clone()
            } else {
                argument.clone()
            }
        };
        let arguments: Vec<_> = container.args.iter().flatten().map(replace_port).collect();
        assert!(arguments.contains(&port), "no {manifest_port} in the args");
        let mut command = waypost(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        if name == "api-gateway" {
            // The pods of this test have loopback addresses, which no pod of a cluster has.
            command.arg("--allow-external-names");
        }
        let state = self.directory.path().join(format!("state-{name}"));
        fs::create_dir(&state).unwrap();
        for variable in container.env.iter().flatten() {
            let value = variable.value.as_deref().unwrap_or_default();
            let state = state.display().to_string();
            command.env(&variable.name, value.replace("/var/lib/waypost", &state));
        }
        self.set_up_service_account(&mut command, name, spec);
        Pod {
            name: name.to_owned(),
            port: port.parse().unwrap(),
            container: container.clone(),
            grace_period: spec
                .termination_grace_period_seconds
                .unwrap()
                .unsigned_abs(),
            state,
            program: Program::start(command),
        }
    }

    /// Sets what Kubernetes gives to every pod, with a token if the pod mounts one.
    fn set_up_service_account(&self, command: &mut Command, name: &str, spec: &PodSpec) {
        let account = self.directory.path().join(format!("account-{name}"));
        let address = self.server.address();
        command
            .env("KUBERNETES_SERVICE_HOST", address.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", address.port().to_string())
            .env("WAYPOST_SERVICE_ACCOUNT_DIR", &account);
        if spec.automount_service_account_token != Some(true) {
            return;
        }
        let account_name = spec.service_account_name.as_deref().unwrap();
        let user = format!("system:serviceaccount:{NAMESPACE}:{account_name}");
        let token = self.server.add_user(&user);
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
    grace_period: u64,
    state: PathBuf,
    program: Program,
}

impl Pod {
    async fn wait_for_probes(&self) {
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
        let response = http().get(url).send().await.ok()?;
        Some(response.status().as_u16())
    }

    /// Sends SIGTERM, and checks that it exits within the grace period.
    async fn terminate(&mut self) {
        signal(self.program.pid(), Signal::TERM);
        let grace_period = Duration::from_secs(self.grace_period);
        let exit = timeout(grace_period, self.program.wait_for_exit()).await;
        assert_eq!(
            exit,
            Ok(Some(0)),
            "{}: {}",
            self.name,
            self.program.output()
        );
    }
}
