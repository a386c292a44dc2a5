//! This machine: name resolution, proxies and limits.

use std::net::ToSocketAddrs;

use rustix::process::{Resource, getrlimit};
use waypost::{Environment, mask_secrets};

use super::finding::Finding;

/// The minimum number of open files. A gateway or a registry under load needs more: each connection takes
/// one.
const MIN_OPEN_FILES: u64 = 1024;

pub(super) fn examine() -> Vec<Finding> {
    vec![
        localhost(),
        proxies(&Environment::of_this_process()),
        open_files(getrlimit(Resource::Nofile).current),
    ]
}

/// Whether `localhost` is this machine, which the defaults of all clients assume.
fn localhost() -> Finding {
    const SUBJECT: &str = "dns";
    const ADVICE: &str = "add `127.0.0.1 localhost` to /etc/hosts";
    match ("localhost", 0).to_socket_addrs().map(Vec::from_iter) {
        Ok(addresses)
            if addresses
                .iter()
                .any(|it| it.ip().to_canonical().is_loopback()) =>
        {
            let addresses: Vec<_> = addresses.iter().map(|it| it.ip().to_string()).collect();
            Finding::ok(SUBJECT, format!("localhost is {}", addresses.join(", ")))
        }
        Ok(addresses) => {
            let what = format!("localhost is not this machine, but {addresses:?}");
            Finding::error(SUBJECT, what, ADVICE)
        }
        Err(error) => {
            let what = format!("localhost can't be resolved: {error}");
            Finding::error(SUBJECT, what, ADVICE)
        }
    }
}

/// Whether requests for addresses of this machine would be sent to a proxy. Waypost itself never does
/// that, but curl and most HTTP libraries do.
fn proxies(environment: &Environment) -> Finding {
    const SUBJECT: &str = "proxy";
    let either = |names: [&'static str; 2]| {
        let found = names.map(|name| Some((name, environment.get(name)?)));
        found.into_iter().flatten().next()
    };
    let proxy = either(["http_proxy", "HTTP_PROXY"]).or_else(|| either(["all_proxy", "ALL_PROXY"]));
    let Some((name, proxy)) = proxy else {
        return Finding::ok(SUBJECT, "none is set for HTTP");
    };
    let excepted = either(["no_proxy", "NO_PROXY"]).map_or("", |(_, excepted)| excepted);
    let excepts = |host: &str| {
        excepted
            .split(',')
            .any(|it| matches!(it.trim(), "*") || it.trim() == host)
    };
    let missing: Vec<_> = ["localhost", "127.0.0.1"]
        .into_iter()
        .filter(|host| !excepts(host))
        .collect();
    let proxy = mask_secrets(proxy);
    if missing.is_empty() {
        let what = format!("{name} is {proxy}, with an exception for this machine");
        return Finding::ok(SUBJECT, what);
    }
    let what = format!(
        "{name} is {proxy}, and NO_PROXY does not include {}: your programs and curl send requests \
         for services on this machine to the proxy",
        missing.join(" and ")
    );
    let advice = "export NO_PROXY=localhost,127.0.0.1,::1 and the network of your services";
    Finding::warning(SUBJECT, what, advice)
}

fn open_files(limit: Option<u64>) -> Finding {
    const SUBJECT: &str = "limits";
    match limit {
        Some(limit) if limit < MIN_OPEN_FILES => {
            let what = format!("a process may open only {limit} files and connections");
            let advice = "raise the limit: `ulimit -n 65536` in the shell, LimitNOFILE= in a unit of \
                          systemd";
            Finding::warning(SUBJECT, what, advice)
        }
        Some(limit) => Finding::ok(SUBJECT, format!("{limit} open files")),
        None => Finding::ok(SUBJECT, "open files are not limited"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_needs_exceptions_for_this_machine() {
        let proxy = |variables: &[(&str, &str)]| {
            format!("{:?}", proxies(&variables.iter().copied().collect()))
        };
        let set = ("HTTP_PROXY", "http://p:1");
        for (variables, severity, what) in [
            (&[][..], "Ok", "none is set for HTTP"),
            (
                &[set],
                "Warning",
                "does not include localhost and 127.0.0.1:",
            ),
            (
                &[set, ("NO_PROXY", "127.0.0.1")],
                "Warning",
                "does not include localhost:",
            ),
            (
                &[set, ("NO_PROXY", "localhost")],
                "Warning",
                "does not include 127.0.0.1:",
            ),
            (
                &[set, ("no_proxy", "localhost, 127.0.0.1")],
                "Ok",
                "HTTP_PROXY is http://p:1, with",
            ),
            (&[set, ("NO_PROXY", "*")], "Ok", "with an exception"),
            (
                &[("all_proxy", "http://a:1")],
                "Warning",
                "all_proxy is http://a:1",
            ),
            (
                &[("ALL_PROXY", "http://a:1"), set],
                "Warning",
                "HTTP_PROXY is http://p:1",
            ),
            (
                &[("HTTP_PROXY", "http://me:pw@p:1")],
                "Warning",
                "http://***@p:1",
            ),
        ] {
            let finding = proxy(variables);
            assert!(
                finding.contains(&format!("severity: {severity}")),
                "{finding}"
            );
            assert!(finding.contains(what), "{what}: {finding}");
        }
    }

    #[test]
    fn few_open_files_are_a_warning() {
        for (limit, expected) in [
            (Some(1023), "may open only 1023 files"),
            (Some(1024), "1024 open files"),
            (None, "open files are not limited"),
        ] {
            let finding = format!("{:?}", open_files(limit));
            assert!(finding.contains(expected), "{finding}");
            assert_eq!(
                finding.contains("severity: Ok"),
                limit != Some(1023),
                "{finding}"
            );
        }
    }
}
