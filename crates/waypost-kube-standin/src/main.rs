//! The stand-in as a program, to be used by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use waypost_kube_standin::ApiServer;

/// A stand-in for the Kubernetes API server, for a laptop.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 is a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where to write the kubeconfig.
    #[arg(long, value_name = "FILE", default_value = "kubeconfig")]
    kubeconfig: PathBuf,
    /// The namespace that the contexts start in.
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Take endpoints at loopback addresses, which the API server refuses.
    #[arg(long)]
    allow_loopback: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let server = ApiServer::builder()
        .address(args.listen)
        .kubeconfig(&args.kubeconfig)
        .namespace(&args.namespace)
        .allow_loopback(args.allow_loopback)
        .start()
        .await;
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            eprintln!("waypost-kube-standin: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "{} export KUBECONFIG={}",
        server.url(),
        args.kubeconfig.display()
    );
    let _ = tokio::signal::ctrl_c().await;
    ExitCode::SUCCESS
}
