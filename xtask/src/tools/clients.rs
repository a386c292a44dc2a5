//! Clients of Consul's API, for the tests of the embedded registry; gRPC for Python, for those of the gateway; and
//! axe, for those of the pages.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{debian, npm};
use crate::shell;
use crate::shell::{Result, find_on_path};

/// The last Debian release whose Prometheus supports `consul_sd_configs`.
const PROMETHEUS_SUITE: &str = "bullseye";
const PROMETHEUS_AMD64_SHA256: &str =
    "7f98887c0fa36e0dd81bb39abc57a9e2535c2a0dc20442a431255ebc0b87b73a";

/// Packages for Python: a client of Consul, and gRPC for the tests of the gateway.
const PYTHON_PACKAGES: [(&str, &str); 2] = [("py-consul", "1.8.0"), ("grpcio", "1.85.3")];
const NODE_CLIENT: (&str, &str) = ("consul", "2.0.1");
const AXE: (&str, &str) = ("axe-core", "4.14.1");

/// The paths of the clients.
pub(crate) struct Clients {
    pub(crate) prometheus: PathBuf,
    pub(crate) haproxy: PathBuf,
    pub(crate) dig: PathBuf,
    /// A Python with the packages installed.
    pub(crate) python: PathBuf,
    pub(crate) node: PathBuf,
    /// The directory with the client for Node.
    pub(crate) node_modules: PathBuf,
    /// The script that finds accessibility problems in a page.
    pub(crate) axe: PathBuf,
}

/// A program, and the Debian packages that contain it.
struct Program {
    variable: &'static str,
    name: &'static str,
    /// Whether the program at this path can't be used.
    unusable: fn(&Path) -> bool,
    packages: &'static [&'static str],
}

const HAPROXY: Program = Program::new("WAYPOST_HAPROXY", "haproxy", &["haproxy"]);
const DIG: Program = Program::new("WAYPOST_DIG", "dig", &["bind9-dnsutils"]);
const NODE: Program = Program::new("WAYPOST_NODE", "node", &["nodejs"]);
const NPM: Program = Program::new("WAYPOST_NPM", "npm", &["npm"]);
const PYTHON: Program = Program {
    unusable: |python| {
        let mut imports = Command::new(python);
        shell::output(imports.args(["-c", "import ensurepip, venv"])).is_err()
    },
    ..Program::new("WAYPOST_PYTHON", "python3", &["python3", "python3-venv"])
};

/// Finds the clients. On Debian, missing ones are downloaded, or installed if this runs as root.
pub(crate) fn find_or_install() -> Result<Clients> {
    let programs = [HAPROXY, DIG, NODE, NPM, PYTHON];
    let missing: Vec<&str> = programs
        .iter()
        .filter(|program| program.find().is_none())
        .flat_map(|program| program.packages.iter().copied())
        .collect();
    if !missing.is_empty() {
        if !(debian::is_debian() && debian::is_root()) {
            return Err(advice(&missing));
        }
        debian::install(&missing)?;
    }
    let found = |program: Program| program.find().ok_or_else(|| advice(program.packages));
    Ok(Clients {
        prometheus: find_or_fetch_prometheus()?,
        haproxy: found(HAPROXY)?,
        dig: found(DIG)?,
        python: python_with_packages(&found(PYTHON)?)?,
        node: found(NODE)?,
        node_modules: npm::package(&found(NPM)?, NODE_CLIENT)?,
        axe: npm::package(&found(NPM)?, AXE)?.join("axe-core/axe.min.js"),
    })
}

/// A Python 3 with `venv`.
pub(crate) fn python() -> Result<PathBuf> {
    if PYTHON.find().is_none() && debian::is_debian() && debian::is_root() {
        debian::install(PYTHON.packages)?;
    }
    let variable = PYTHON.variable;
    PYTHON.find().ok_or_else(|| {
        let packages = PYTHON.packages.join(" ");
        let how = if debian::is_debian() {
            format!("run: sudo apt-get update && sudo apt-get install {packages}")
        } else {
            "install Python 3.10 or later with venv".to_owned()
        };
        format!("the Python package needs Python 3 with venv: {how}\n(or set {variable} to it)")
    })
}

impl Program {
    const fn new(
        variable: &'static str,
        name: &'static str,
        packages: &'static [&'static str],
    ) -> Self {
        Self {
            variable,
            name,
            unusable: |_| false,
            packages,
        }
    }

    fn find(&self) -> Option<PathBuf> {
        let named = std::env::var_os(self.variable).map(PathBuf::from);
        // /usr/sbin is often missing from the PATH of users other than root.
        let sbin = Path::new("/usr/sbin").join(self.name);
        let candidates = [named, find_on_path(&[self.name]), Some(sbin)];
        let mut candidates = candidates.into_iter().flatten();
        candidates.find(|file| file.is_file() && !(self.unusable)(file))
    }
}

fn find_or_fetch_prometheus() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("WAYPOST_PROMETHEUS") {
        return Ok(named.into());
    }
    let cached = tools().join("bin/prometheus");
    if !cached.is_file() {
        if !debian::is_debian() {
            return Err(
                "the tests need a Prometheus that supports consul_sd_configs: install one and set \
                 WAYPOST_PROMETHEUS to its path"
                    .to_owned(),
            );
        }
        eprintln!("xtask: fetching Prometheus from the machine's Debian mirror");
        debian::fetch_program(
            PROMETHEUS_SUITE,
            "prometheus",
            PROMETHEUS_AMD64_SHA256,
            &cached,
        )?;
    }
    Ok(cached)
}

/// Installs the packages in a virtual environment, so that the machine's Python does not change.
fn python_with_packages(python: &Path) -> Result<PathBuf> {
    let [(first, version), _] = PYTHON_PACKAGES;
    let folder = tools().join(format!("{first}-{version}"));
    let own = folder.join("bin/python");
    let imports = ["-c", "import consul, grpc"];
    if shell::output(Command::new(&own).args(imports)).is_err() {
        let packages = PYTHON_PACKAGES.map(|(name, version)| format!("{name}=={version}"));
        eprintln!("xtask: fetching {} for Python", packages.join(" and "));
        shell::output(
            Command::new(python)
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        )?;
        // Building grpcio would need a C++ compiler and half an hour.
        let install = ["-m", "pip", "install", "-q", "--retries", "10"];
        let binary = ["--only-binary", "grpcio"];
        shell::output(Command::new(&own).args(install).args(binary).args(packages))?;
    }
    Ok(own)
}

fn tools() -> PathBuf {
    shell::workspace().join("target/tools")
}

fn advice(packages: &[&str]) -> String {
    let names = [HAPROXY, DIG, NODE, NPM, PYTHON].map(|program| program.variable);
    let how = if debian::is_debian() {
        let packages = packages.join(" ");
        format!("run: sudo apt-get update && sudo apt-get install {packages}")
    } else {
        "install HAProxy, dig, Python 3 with venv, Node and npm".to_owned()
    };
    format!(
        "the tests run clients of Consul and of gRPC: {how}\n(or set {} to the programs)",
        names.join(", ")
    )
}
