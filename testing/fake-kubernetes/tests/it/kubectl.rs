//! The measure of a stand-in: real `kubectl` can't tell the difference.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use waypost_fake_kubernetes::{ApiServer, manifest};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: { name: web, labels: { app: web } }
spec:
  selector: { app: web }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: http, port: 8080, protocol: TCP }]
endpoints: [{ addresses: [10.0.0.1], conditions: { ready: true } }]
";

struct Kubectl {
    server: ApiServer,
    home: TempDir,
}

/// What a run printed, out and err.
struct Printed(bool, String);

impl Kubectl {
    async fn new() -> Self {
        Self {
            server: ApiServer::builder()
                .namespace("demo")
                .start()
                .await
                .unwrap(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, line: &str) -> Command {
        let program = std::env::var_os("WAYPOST_KUBECTL");
        let mut command = Command::new(program.map_or_else(|| "kubectl".into(), PathBuf::from));
        command
            // Quotes are not needed, but a space in a word is: `_` stands for it.
            .args(line.split_whitespace().map(|it| it.replace('_', " ")))
            // Its cache of what there is goes with the test.
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.server.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Printed {
        self.run_with(line, "").await
    }

    async fn run_with(&self, line: &str, input: &str) -> Printed {
        let mut command = self.command(line);
        let mut child = start(command.stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(SOON, child.wait_with_output());
        let output = output.await.expect("an end in time").unwrap();
        let text = [output.stdout, output.stderr].concat();
        Printed(
            output.status.success(),
            String::from_utf8(text).unwrap().trim().to_owned(),
        )
    }

    /// What it prints when it succeeds.
    async fn ok(&self, line: &str) -> String {
        let Printed(is_ok, text) = self.run(line).await;
        assert!(is_ok, "kubectl {line}\n{text}");
        text
    }

    /// What it prints when it fails.
    async fn refused(&self, line: &str) -> String {
        let Printed(is_ok, text) = self.run(line).await;
        assert!(!is_ok, "kubectl {line}\n{text}");
        text
    }
}

fn start(command: &mut Command) -> Child {
    command
        .spawn()
        .unwrap_or_else(|error| panic!("no kubectl ({error}); run `cargo xtask setup`"))
}

/// The words of a line of a table.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn applies_and_shows_manifests() {
    let it = Kubectl::new().await;
    let Printed(is_ok, text) = it.run_with("apply -f -", WEB).await;
    assert!(is_ok, "{text}");
    assert_eq!(
        text,
        "service/web created\nendpointslice.discovery.k8s.io/web-1 created"
    );
    let Printed(_, text) = it.run_with("apply -f -", WEB).await;
    assert_eq!(
        text,
        "service/web unchanged\nendpointslice.discovery.k8s.io/web-1 unchanged"
    );
    let Printed(is_ok, text) = it
        .run_with("apply --server-side --force-conflicts -f -", WEB)
        .await;
    assert!(is_ok, "{text}");

    let table = it.ok("get svc,endpointslices -o wide").await;
    let rows: Vec<_> = table.lines().map(words).collect();
    assert_eq!(rows[0][..3], ["NAME", "TYPE", "CLUSTER-IP"]);
    assert_eq!(rows[1][0], "service/web");
    assert_eq!(rows[1][4], "80/TCP");
    assert_eq!(rows[1][6], "app=web");
    assert_eq!(
        rows[3],
        ["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]
    );
    assert_eq!(rows[4][1..4], ["IPv4", "8080", "10.0.0.1"]);
    let yaml = it.ok("get endpointslices web-1 -o yaml").await;
    assert!(yaml.contains("- addresses:\n  - 10.0.0.1\n"), "{yaml}");
    assert!(yaml.contains("apiVersion: discovery.k8s.io/v1"), "{yaml}");
    assert_eq!(
        it.ok("get svc -A -l app_in_(web,api) -o name").await,
        "service/web"
    );
    let address = "get endpointslices web-1 -o jsonpath={.endpoints[0].addresses[0]}";
    assert_eq!(it.ok(address).await, "10.0.0.1");
}

#[tokio::test]
async fn changes_and_deletes() {
    let it = Kubectl::new().await;
    it.ok("create namespace other").await;
    assert_eq!(
        it.ok("create service clusterip api --tcp=80:8080").await,
        "service/api created"
    );
    it.ok("label svc api tier=gold").await;
    assert_eq!(it.ok("get svc -l tier=gold -o name").await, "service/api");
    it.ok(r#"patch svc api -p {"spec":{"ports":[{"port":80,"name":"web"}]}}"#)
        .await;
    let name = "get svc api -o jsonpath={.spec.ports[*].name}";
    assert_eq!(it.ok(name).await, "web");
    it.ok(r#"patch svc api --type=merge -p {"metadata":{"labels":{"tier":null}}}"#)
        .await;
    assert_eq!(it.ok("get svc -l tier -o name").await, "");
    it.ok("annotate svc api note=new").await;
    assert!(
        it.ok("delete svc api")
            .await
            .starts_with("service \"api\" deleted")
    );
    assert_eq!(
        it.refused("get svc api").await,
        "Error from server (NotFound): services \"api\" not found"
    );
    it.ok("delete namespace other --wait=false").await;
    let namespaces = it.ok("get namespace other --no-headers").await;
    assert_eq!(words(&namespaces)[..2], ["other", "Terminating"]);
}

#[tokio::test]
async fn watches() {
    let it = Kubectl::new().await;
    let put = |address: &str| {
        let endpoints = [manifest::endpoint(address)];
        let slice = manifest::slice("demo", "web", "web-1", &[("http", 80)], endpoints);
        it.server.put(&slice);
    };
    put("10.0.0.1");
    let mut watch = start(&mut it.command("get endpointslices --watch --output-watch-events"));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(SOON, lines.next_line()).await;
        line.expect("a line in time").unwrap().unwrap()
    };
    assert_eq!(words(&next().await)[..2], ["EVENT", "NAME"]);
    assert_eq!(
        words(&next().await)[..5],
        ["ADDED", "web-1", "IPv4", "80", "10.0.0.1"]
    );
    put("10.0.0.2");
    assert_eq!(
        words(&next().await)[..5],
        ["MODIFIED", "web-1", "IPv4", "80", "10.0.0.2"]
    );
    it.server.delete("endpointslices", "demo", "web-1");
    assert_eq!(words(&next().await)[..2], ["DELETED", "web-1"]);
    watch.kill().await.unwrap();
    let waited = it
        .ok("wait --for=jsonpath={.status.phase}=Active namespace/demo")
        .await;
    assert_eq!(waited, "namespace/demo condition met");
}

#[tokio::test]
async fn lists_in_chunks() {
    let it = Kubectl::new().await;
    for slice in manifest::many_slices("demo", "web", 7, 2) {
        it.server.put(&slice);
    }
    it.server.forget_requests();
    let names = it.ok("get endpointslices --chunk-size=3 -o name").await;
    assert_eq!(names.lines().count(), 7);
    let lists = it.server.requests();
    assert_eq!(lists.iter().filter(|it| it.verb == "list").count(), 3);
}

#[tokio::test]
async fn asks_for_rights() {
    let it = Kubectl::new().await;
    it.server.add_user("reader").unwrap();
    assert_eq!(it.ok("auth can-i list services").await, "yes");
    assert_eq!(
        it.refused("auth can-i list services --context=reader")
            .await,
        "no"
    );
    it.ok("create role reader --verb=get,list,watch --resource=services")
        .await;
    it.ok("create rolebinding reader --role=reader --user=reader")
        .await;
    assert_eq!(
        it.ok("auth can-i list services --context=reader").await,
        "yes"
    );
    // The same user, known by a certificate.
    let can_list = "auth can-i list services --context=reader-certificate";
    assert_eq!(it.ok(can_list).await, "yes");
    let listed = it.ok("auth can-i --list --context=reader").await;
    assert!(
        listed.contains("services") && listed.contains("[get list watch]"),
        "{listed}"
    );
    assert_eq!(
        it.refused("get endpointslices --context=reader").await,
        "Error from server (Forbidden): endpointslices.discovery.k8s.io is forbidden: User \
         \"reader\" cannot list resource \"endpointslices\" in API group \"discovery.k8s.io\" in \
         the namespace \"demo\""
    );
    assert_eq!(
        it.refused("get svc --token=wrong").await,
        "error: You must be logged in to the server (Unauthorized)"
    );
}

#[tokio::test]
async fn is_told_what_is_wrong() {
    let it = Kubectl::new().await;
    let apply = async |from: &str, to: &str| {
        let Printed(is_ok, text) = it.run_with("apply -f -", &WEB.replace(from, to)).await;
        assert!(!is_ok, "{text}");
        text
    };
    let text = apply("10.0.0.1", "127.0.0.1").await;
    assert!(
        text.ends_with(
            "The EndpointSlice \"web-1\" is invalid: endpoints[0].addresses[0]: Invalid value: \
             \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
        ),
        "{text}"
    );
    let text = apply("addresses:", "adresses:").await;
    assert!(
        text.contains("strict decoding error: unknown field \"endpoints[0].adresses\""),
        "{text}"
    );
    let text = apply("name: web-1", "name: web-1, namespace: nowhere").await;
    assert!(text.contains("namespaces \"nowhere\" not found"), "{text}");
    assert_eq!(
        it.refused("get nothing").await,
        "error: the server doesn't have a resource type \"nothing\""
    );
}

#[tokio::test]
async fn learns_what_there_is() {
    let it = Kubectl::new().await;
    let resources = it.ok("api-resources --no-headers").await;
    let slices = resources
        .lines()
        .find(|it| it.starts_with("endpointslices"));
    assert_eq!(
        words(slices.unwrap()),
        [
            "endpointslices",
            "discovery.k8s.io/v1",
            "true",
            "EndpointSlice"
        ]
    );
    assert!(it.ok("api-versions").await.contains("discovery.k8s.io/v1"));
    assert!(it.ok("version").await.contains("Server Version: v1.36"));
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(it.ok(&format!("get --raw {path}")).await, "ok");
    }
    let list = it
        .ok("get --raw /apis/discovery.k8s.io/v1/endpointslices?limit=1")
        .await;
    assert!(list.starts_with(r#"{"kind":"EndpointSliceList""#), "{list}");
    assert!(it.ok("get all").await.contains("No resources found"));
}
