//! A gateway in a process of its own, for tests of what a process may use.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use waypost::ServiceDiscoveryClient;
use waypost::provider::MemoryProvider;
use waypost_gateway::{Config, Gateway};

use super::{instance, with_deadline};

/// The line with which the process says where it listens.
const LISTENING: &str = "listening on ";
/// The variable with the addresses of the instances of `shop`.
const INSTANCES: &str = "GATEWAY_TEST_INSTANCES";

/// A gateway with the service `shop`. Ends with the test.
pub(crate) struct GatewayProcess {
    pub(crate) address: SocketAddr,
    pub(crate) internal: SocketAddr,
    process: Child,
}

impl GatewayProcess {
    /// Starts a gateway that may have `descriptors` open.
    pub(crate) async fn start(descriptors: u32, instances: &[SocketAddr]) -> Self {
        let program = std::env::current_exe().expect("the test's program");
        let instances: Vec<String> = instances.iter().map(SocketAddr::to_string).collect();
        let mut process = Command::new("sh")
            .args(["-c", "ulimit -n \"$0\" && exec \"$@\""])
            .arg(descriptors.to_string())
            .arg(program)
            .args([
                "--exact",
                "support::process::gateway",
                "--ignored",
                "--nocapture",
            ])
            .env(INSTANCES, instances.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let output = process.stdout.take().expect("its output");
        let mut lines = BufReader::new(output).lines();
        let addresses = with_deadline("the gateway's addresses", async {
            loop {
                let line = lines.next_line().await.expect("text");
                let line = line.expect("the gateway starts");
                if let Some((_, addresses)) = line.split_once(LISTENING) {
                    return addresses.to_owned();
                }
            }
        })
        .await;
        let (address, internal) = addresses.split_once(' ').expect("two addresses");
        Self {
            address: address.parse().expect("an address"),
            internal: internal.parse().expect("an address"),
            process,
        }
    }

    /// The most memory that the process has used so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.process.id().expect("a running process");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.expect("a peak").trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().expect("a number") * 1024
    }
}

#[test]
#[ignore = "the program of GatewayProcess"]
fn gateway() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let memory = MemoryProvider::new();
        let instances = std::env::var(INSTANCES).expect("addresses of instances");
        for address in instances.split(',') {
            let shop = instance("shop", address, address.parse().expect("an address"));
            memory.insert(shop.build().expect("a valid instance"));
        }
        let mut config = Config::default();
        config.worker_threads = 1;
        config.register = false;
        // By default it would not accept so many that none is left for instances.
        config.max_connections = Some(100_000);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let internal = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let [address, pages] =
            [&listener, &internal].map(|it| it.local_addr().expect("an address"));
        println!("{LISTENING}{address} {pages}");
        let client = ServiceDiscoveryClient::new(Arc::new(memory));
        let end = async {
            // The test's end closes it.
            let ended = || std::io::Read::read(&mut std::io::stdin(), &mut [0]);
            let _ = tokio::task::spawn_blocking(ended).await;
        };
        let serving = Gateway::new(client, config).with_internal(internal);
        serving.serve(listener, end).await.expect("no error");
    });
}
