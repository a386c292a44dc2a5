//! `{services.NAME.port}` in the texts of a stack file.

const BEGIN: &str = "{services.";
const END: &str = ".port}";

/// A placeholder for the port of another service.
pub(super) enum ServicePort<'t> {
    Of(&'t str),
    /// Text that begins like a placeholder but isn't one.
    Malformed(&'t str),
}

/// The placeholders in a text.
pub(super) fn service_ports(text: &str) -> Vec<ServicePort<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let end = rest[start..]
            .find('}')
            .map_or(rest.len(), |at| start + at + 1);
        let placeholder = &rest[start..end];
        let name = placeholder
            .strip_prefix(BEGIN)
            .and_then(|name| name.strip_suffix(END));
        found.push(match name {
            Some(name) => ServicePort::Of(name),
            None => ServicePort::Malformed(placeholder),
        });
        rest = &rest[end..];
    }
    found
}

/// Replaces every placeholder whose service has a port.
pub(super) fn expand_service_ports(text: &str, port: impl Fn(&str) -> Option<u16>) -> String {
    let mut expanded = text.to_owned();
    for reference in service_ports(text) {
        if let ServicePort::Of(name) = reference
            && let Some(port) = port(name)
        {
            expanded = expanded.replace(&format!("{BEGIN}{name}{END}"), &port.to_string());
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_a_service_is_replaced() {
        let port = |name: &str| match name {
            "postgres" => Some(5432),
            "web.demo" => Some(80),
            _ => None,
        };
        let text =
            "a={services.postgres.port} b={services.web.demo.port} {port} {services.postgres.port}";
        assert_eq!(expand_service_ports(text, port), "a=5432 b=80 {port} 5432");
    }

    #[test]
    fn an_incomplete_placeholder_is_malformed() {
        for text in ["{services.a.prt}", "{services.a", "{services.}"] {
            let found = service_ports(text);
            assert!(
                matches!(found[..], [ServicePort::Malformed(malformed)] if malformed == text),
                "{text}"
            );
        }
    }
}
