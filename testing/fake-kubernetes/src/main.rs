//! The stand-in as a program, to be used by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use waypost_fake_kubernetes::{ApiServer, Error, control};

/// A stand-in for the Kubernetes API server, for a laptop. It keeps nothing when it ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 is a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where to take commands for faults: `curl ADDRESS` lists them.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6444")]
    control: SocketAddr,
    /// Where to write the kubeconfig.
    #[arg(long, value_name = "FILE", default_value = "kubeconfig")]
    kubeconfig: PathBuf,
    /// The namespace that the contexts start in.
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// A user that may do nothing yet, with a context of its name; can be given several times.
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<String>,
    /// Take endpoints at loopback addresses, which the API server refuses.
    #[arg(long)]
    allow_loopback: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypost-fake-kubernetes: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let server = ApiServer::builder()
        .address(args.listen)
        .kubeconfig(&args.kubeconfig)
        .namespace(&args.namespace)
        .allow_loopback(args.allow_loopback)
        .start()
        .await?;
    for user in &args.users {
        server.add_user(user)?;
    }
    let server = Arc::new(server);
    let control = control(Arc::clone(&server), args.control).await?;
    println!("API      {}", server.url());
    println!("faults   curl http://{control}");
    println!("use it   export KUBECONFIG={}", args.kubeconfig.display());
    // Without signals it runs until it is killed.
    let _ = tokio::signal::ctrl_c().await;
    Ok(())
}
