//! The policy file: YAML, for what one string of a variable cannot say.
//!
//! A file is read whole or not at all. Every error has the line and column it is about.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::clients::Clients;
use super::host::{HostPattern, parse_range};
use super::ports::Ports;
use super::rule::{Action, Rule};
use super::{Mode, PathPrefix};

mod document;
#[cfg(test)]
mod tests;

use document::{Document, WrittenAction, WrittenClient, WrittenMode, WrittenPort, WrittenRule};

/// A larger file is refused before it is read: ten thousand rules take about one.
pub const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// Keys, texts and lists of a file, those that aliases stand for among them: more than rules can
/// be of a file of [`MOST_BYTES`], a hundred megabytes in memory.
const MOST_VALUES: usize = 1_000_000;

/// What a policy file says.
#[derive(Debug, Default)]
pub struct PolicyFile {
    /// Whether host rules bind; none where the file does not say.
    pub mode: Option<Mode>,
    /// The clients it names.
    pub clients: Clients,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Why a file is no policy, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// Line, from 1; 0 where the file as a whole is wrong.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.message);
        }
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

impl PolicyFile {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let document: Document = serde_saphyr::from_str_with_options(text, options())
            .map_err(|error| FileError::of_yaml(&error))?;
        if document.says_nothing() {
            let message = "the file is empty; a policy that allows nothing says rules: []";
            return Err(FileError {
                line: 0,
                column: 0,
                message: message.to_owned(),
            });
        }
        let (clients, names) = read_clients(document.clients.unwrap_or_default())?;
        let mut taken = HashSet::new();
        let mut rules = Vec::new();
        for written in document.rules.unwrap_or_default() {
            if !taken.insert(written.name.value.clone()) {
                return Err(at(&written.name, "another rule has this name"));
            }
            rules.push(read_rule(&written, &names)?);
        }
        let mode = document.mode.map(|mode| match mode {
            WrittenMode::Enforce => Mode::Enforce,
            WrittenMode::Report => Mode::Report,
        });
        Ok(Self {
            mode,
            clients,
            rules,
        })
    }

    /// The JSON Schema of the file, for editors.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        // What may be left out may still not be null.
        let no_null = RecursiveTransform(|schema: &mut Schema| {
            if schema
                .get("default")
                .is_some_and(serde_json::Value::is_null)
            {
                schema.remove("default");
            }
        });
        let settings = SchemaSettings::default().with_transform(no_null);
        let schema = settings.into_generator().into_root_schema_for::<Document>();
        schema.to_value()
    }
}

/// How the parser is to read. What aliases expand to it bounds by itself.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        // The size of the file is to be what bounds it.
        budget: serde_saphyr::budget! {
            max_nodes: MOST_VALUES,
            max_events: 2 * MOST_VALUES,
            // One list of hosts may be meant a thousand times.
            enforce_alias_anchor_ratio: false,
        },
    }
}

impl FileError {
    fn of_yaml(error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let location = error.location();
        Self {
            line: location.as_ref().map_or(0, Location::line),
            column: location.as_ref().map_or(0, Location::column),
            message: yaml_message(error),
        }
    }
}

/// What is wrong, in the parser's words; where it speaks of its own parts, in ours.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what other errors the parser has is its own affair"
)]
fn yaml_message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{Budget, DuplicateMappingKey, MultipleDocuments, Unexpected};
    let ours = match error {
        Unexpected { expected, .. } if *expected == "sequence start" => {
            "expected a list, such as [a, b]"
        }
        Unexpected { expected, .. } if *expected == "mapping start" => "expected keys with values",
        Budget { .. } => "the file holds too many values, or nests them too deep",
        MultipleDocuments { .. } => "a second document begins here; a policy is one document",
        DuplicateMappingKey { key: Some(key), .. } => {
            return format!("the key {key} is there twice");
        }
        _ => return UserMessageFormatter.format_message(error).into_owned(),
    };
    ours.to_owned()
}

/// An error about a value of the file.
fn at<T>(value: &Spanned<T>, message: impl fmt::Display) -> FileError {
    FileError {
        line: value.defined.line(),
        column: value.defined.column(),
        message: message.to_string(),
    }
}

fn read_clients(written: Vec<WrittenClient>) -> Result<(Clients, HashSet<String>), FileError> {
    let mut clients = Clients::default();
    let mut names = HashSet::new();
    for client in written {
        if client.name.value.trim().is_empty() {
            return Err(at(&client.name, "the client has no name"));
        }
        if !names.insert(client.name.value.clone()) {
            return Err(at(&client.name, "another client has this name"));
        }
        if let Some(certificate) = &client.certificate {
            let message = "clients cannot be known by certificate, for this version has no TLS listener; \
                           use networks or user";
            return Err(at(certificate, message));
        }
        if client.networks.is_empty() && client.user.is_none() {
            return Err(at(
                &client.name,
                "the client has neither networks nor user to be known by",
            ));
        }
        let name: Arc<str> = client.name.value.as_str().into();
        for network in &client.networks {
            let range = parse_range(&network.value).map_err(|error| at(network, error))?;
            if !clients.add_network(range, Arc::clone(&name)) {
                return Err(at(network, "this network is listed before"));
            }
        }
        if let Some(user) = &client.user {
            if user.value.is_empty() || user.value.contains(':') {
                return Err(at(
                    user,
                    "a user name is not empty and has no colon (RFC 7617)",
                ));
            }
            if !clients.add_user(&user.value, name) {
                return Err(at(user, "another client has this user name"));
            }
        }
    }
    Ok((clients, names))
}

fn read_rule(written: &WrittenRule, clients: &HashSet<String>) -> Result<Rule, FileError> {
    let action = match written.action {
        WrittenAction::Allow => Action::Allow,
        WrittenAction::Deny => Action::Deny,
    };
    let mut hosts = Vec::with_capacity(written.hosts.len());
    for host in &written.hosts {
        let pattern: HostPattern = host.value.parse().map_err(|error| at(host, error))?;
        // Each by itself, so that the error stands at the entry it is about.
        Rule::new("host", action, vec![pattern.clone()])
            .err()
            .filter(super::rule::RuleError::is_about_host)
            .map_or(Ok(()), |error| Err(at(host, error)))?;
        hosts.push(pattern);
    }
    let mut rule = Rule::new(written.name.value.as_str(), action, hosts)
        .map_err(|error| at(&written.name, error))?;
    if let Some(ports) = &written.ports {
        rule = rule.with_ports(read_ports(ports, &written.name)?);
    }
    if let Some(path) = &written.path {
        let prefix: PathPrefix = path.value.parse().map_err(|error| at(path, error))?;
        rule = rule.with_path(prefix);
    }
    if let Some(names) = &written.clients {
        if names.is_empty() {
            let message = "clients: [] would mean nobody; leave it out to mean everyone";
            return Err(at(&written.name, message));
        }
        if let Some(unknown) = names.iter().find(|name| !clients.contains(&name.value)) {
            let message = format!(
                "no client is called {:?}; name it under clients",
                unknown.value
            );
            return Err(at(unknown, message));
        }
        rule = rule.with_clients(names.iter().map(|name| name.value.as_str().into()));
    }
    if let (Action::Deny, Some(range)) = (action, written.addresses.first()) {
        let message = "a deny rule has no addresses: it refuses by host; to refuse what hosts resolve to, \
                       set OUTGATE_DENY_ADDRESSES";
        return Err(at(range, message));
    }
    let addresses: Result<Vec<IpNet>, FileError> = written
        .addresses
        .iter()
        .map(|range| parse_range(&range.value).map_err(|error| at(range, error)))
        .collect();
    Ok(rule.with_addresses(addresses?))
}

fn read_ports(
    written: &[Spanned<WrittenPort>],
    name: &Spanned<String>,
) -> Result<Ports, FileError> {
    if written.is_empty() {
        let message =
            "ports: [] would mean none; leave it out for the usual ports, or write [\"*\"]";
        return Err(at(name, message));
    }
    written.iter().try_fold(Ports::Default, |ports, port| {
        let text = match &port.value {
            WrittenPort::One(number) => number.to_string(),
            WrittenPort::Text(text) => text.clone(),
        };
        let more: Ports = text.parse().map_err(|error| at(port, error))?;
        Ok(ports.and(more))
    })
}
