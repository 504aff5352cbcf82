//! Variables that Kubernetes puts into every container for each Service of its namespace ("service links").
//!
//! A Service named `outgate` yields `OUTGATE_SERVICE_HOST`, `OUTGATE_SERVICE_PORT`, `OUTGATE_SERVICE_PORT_HTTP`,
//! `OUTGATE_PORT` and `OUTGATE_PORT_3128_TCP` with `_PROTO`, `_PORT` and `_ADDR`; one named `outgate-admin` yields
//! `OUTGATE_ADMIN_SERVICE_HOST` and so on. Nobody set them, so they must not stop the start. They are recognised by
//! the shape that the kubelet gives them (`pkg/kubelet/envvars`) and not by prefix alone, so that a mistake such as
//! `OUTGATE_PORT=8080` is still told.

/// Protocols of a Service's port.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether the kubelet may have set the variable. `name` begins with `OUTGATE_`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || names_service_port(name)
        || (name.ends_with("_PORT") && is_endpoint(value))
        || names_port(name)
}

/// `…_SERVICE_PORT`, or `…_SERVICE_PORT_HTTP` for a port with a name.
fn names_service_port(name: &str) -> bool {
    name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_")
}

/// `tcp://10.96.0.10:3128`.
fn is_endpoint(value: &str) -> bool {
    value
        .split_once("://")
        .is_some_and(|(scheme, _)| PROTOCOLS.contains(&scheme.to_ascii_uppercase().as_str()))
}

/// `…_PORT_3128_TCP`, and the same with `_PROTO`, `_PORT` or `_ADDR`.
fn names_port(name: &str) -> bool {
    let stem = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    let Some((stem, protocol)) = stem.rsplit_once('_') else {
        return false;
    };
    let Some((stem, port)) = stem.rsplit_once('_') else {
        return false;
    };
    PROTOCOLS.contains(&protocol) && port.parse::<u16>().is_ok() && stem.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VARIABLES;

    #[test]
    fn every_variable_of_a_service_is_recognised() {
        for (name, value) in [
            ("OUTGATE_SERVICE_HOST", "10.96.0.10"),
            ("OUTGATE_SERVICE_PORT", "3128"),
            ("OUTGATE_SERVICE_PORT_HTTP_PROXY", "3128"),
            ("OUTGATE_PORT", "tcp://10.96.0.10:3128"),
            ("OUTGATE_PORT_3128_TCP", "tcp://10.96.0.10:3128"),
            ("OUTGATE_PORT_3128_TCP_PROTO", "tcp"),
            ("OUTGATE_PORT_3128_TCP_PORT", "3128"),
            ("OUTGATE_PORT_3128_TCP_ADDR", "10.96.0.10"),
            ("OUTGATE_ADMIN_SERVICE_HOST", "10.96.0.11"),
            ("OUTGATE_ADMIN_PORT", "tcp://[fd00::b]:9090"),
            ("OUTGATE_ADMIN_PORT_9090_TCP_ADDR", "fd00::b"),
            ("OUTGATE_DNS_PORT_53_UDP", "udp://10.96.0.12:53"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn what_only_resembles_one_is_not() {
        for (name, value) in [
            ("OUTGATE_PORT", "3128"),
            ("OUTGATE_ADMIN_PORT", "9090"),
            ("OUTGATE_PORTS", "tcp://10.96.0.10:3128"),
            ("OUTGATE_PORT_HTTP_TCP", "tcp://10.96.0.10:3128"),
            ("OUTGATE_PORT_99999_TCP", "tcp://10.96.0.10:3128"),
            ("OUTGATE_SERVICE_ACCOUNT", "outgate"),
            ("OUTGATE_ALOW", "api.example.com"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn no_variable_of_the_gateway_looks_like_one() {
        for variable in VARIABLES {
            let name = variable.name;
            assert!(!is_service_link(name, "tcp://10.96.0.10:1"), "{name}");
        }
    }
}
