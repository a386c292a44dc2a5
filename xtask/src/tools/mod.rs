//! The programs that the tests need: a real Consul, its clients, and a browser with its driver.
//!
//! Programs that are already on the machine are used. On Debian the others are downloaded from the
//! mirror that the machine already trusts; elsewhere the error says what to install.

mod browser;
mod clients;
mod consul;
mod debian;
pub(crate) mod npm;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::shell::Result;

pub(crate) use browser::Browser;
use clients::Clients;
pub(crate) use clients::python;
pub(crate) use consul::find_or_fetch as consul;

/// Where the tools are.
pub(crate) struct Tools {
    consul: PathBuf,
    clients: Clients,
    browser: Browser,
}

/// Finds every tool, and fetches what is missing.
pub(crate) fn setup() -> Result<Tools> {
    let clients = clients::find_or_install()?;
    Ok(Tools {
        consul: consul::find_or_fetch()?,
        clients,
        browser: browser::find_or_install()?,
    })
}

impl Tools {
    /// The Consul.
    pub(crate) fn consul(&self) -> &Path {
        &self.consul
    }

    /// The variables with which a test finds the tools.
    pub(crate) fn environment(&self) -> [(&'static str, &PathBuf); 10] {
        [
            ("CONSUL_BIN", &self.consul),
            ("WAYPOST_PROMETHEUS", &self.clients.prometheus),
            ("WAYPOST_HAPROXY", &self.clients.haproxy),
            ("WAYPOST_DIG", &self.clients.dig),
            ("WAYPOST_PYTHON", &self.clients.python),
            ("WAYPOST_NODE", &self.clients.node),
            ("NODE_PATH", &self.clients.node_modules),
            ("WAYPOST_AXE", &self.clients.axe),
            ("WAYPOST_CHROMIUM", &self.browser.chromium),
            ("WAYPOST_CHROMEDRIVER", &self.browser.driver),
        ]
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, path) in self.environment() {
            writeln!(f, "{name}={}", path.display())?;
        }
        Ok(())
    }
}
