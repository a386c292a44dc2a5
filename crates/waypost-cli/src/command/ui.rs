//! `waypost ui`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use data_encoding::HEXLOWER;
use tokio::net::TcpListener;
use waypost::integration::axum::CrossOriginProtection;
use waypost::integration::shutdown_signal;
use waypost_dashboard::server::{Config, router};

use super::listen::listen_error;
use super::token_args::token;
use crate::error::{CommandError, CommandResult};
use crate::random::random;
use crate::terminal::announce;

/// Show a registry, such as Consul, in the browser
///
/// Prints a link with a token. Changes need the token; anyone who can connect to the port can read.
#[derive(Args)]
pub(crate) struct Ui {
    /// The registry to show
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8500")]
    registry: String,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Name of the gateway whose traffic is shown [default: none]
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// Token for the registry; without it, the page asks for one if needed
    #[arg(
        long,
        env = "CONSUL_HTTP_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// File with the token
    #[arg(long, value_name = "FILE", env = "CONSUL_HTTP_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Ui {
    pub(super) async fn run(self) -> CommandResult {
        let session = HEXLOWER.encode(&random::<16>()?);
        let url = registry_url(&self.registry)?;
        let mut config = Config::new(&url, &session);
        config.gateway = self.gateway;
        config.registry_token = token(self.token, self.token_file.as_deref())?;
        let app = router(config).map_err(CommandError::other)?;
        let app = CrossOriginProtection::new().protect(app);
        let address = SocketAddr::new(self.bind, self.port);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| listen_error(address, &error, "--port"))?;
        let authority = authority(listener.local_addr().map_err(CommandError::other)?);
        // A fragment is sent to no server and is in no log.
        announce(format!(
            "dashboard of {url}: http://{authority}/#token={session}"
        ));
        tokio::select! {
            served = async { axum::serve(listener, app).await } => served.map_err(CommandError::other)?,
            () = shutdown_signal() => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The host and port of a link to a listener, for a browser on this machine if it can be used there.
fn authority(address: SocketAddr) -> String {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// The URL of `HOST:PORT`, or the URL itself.
fn registry_url(address: &str) -> Result<String, CommandError> {
    let url = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let is_valid = reqwest::Url::parse(&url)
        .is_ok_and(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
    if is_valid {
        Ok(url)
    } else {
        Err(CommandError::Other(format!(
            "--registry {address:?}: use HOST:PORT, such as 127.0.0.1:8500, or a URL with http or https"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{authority, registry_url};

    #[test]
    fn a_link_has_the_address_unless_it_is_that_of_this_machine() {
        for (address, expected) in [
            ("127.0.0.1:3000", "localhost:3000"),
            ("[::1]:3000", "localhost:3000"),
            ("0.0.0.0:3000", "localhost:3000"),
            ("[::]:3000", "localhost:3000"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(authority(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_registry_is_a_host_with_a_port_or_a_url() {
        assert_eq!(registry_url("consul:8500").unwrap(), "http://consul:8500");
        assert_eq!(
            registry_url("https://consul:8501").unwrap(),
            "https://consul:8501"
        );
        for wrong in ["", "ftp://consul", "http://", "a b"] {
            let error = registry_url(wrong).unwrap_err().to_string();
            assert!(error.contains("use HOST:PORT"), "{error}");
        }
    }
}
