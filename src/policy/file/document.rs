//! The policy file as it is written: its keys, what they may hold, and what an editor is told of them.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

/// The file as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Outgate policy")]
pub(super) struct Document {
    /// Whether host rules bind, or only record what they would have denied.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "WrittenMode")]
    pub(super) mode: Option<WrittenMode>,
    /// Clients that rules can name.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "Vec<WrittenClient>")]
    pub(super) clients: Option<Vec<WrittenClient>>,
    /// Rules; deny wins over allow.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "Vec<WrittenRule>")]
    pub(super) rules: Option<Vec<WrittenRule>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WrittenMode {
    Enforce,
    Report,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenClient {
    /// The name that rules and logs use.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// Networks its connections come from.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) networks: Vec<Spanned<String>>,
    /// The user name it gives in `Proxy-Authorization: Basic`.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "String")]
    pub(super) user: Option<Spanned<String>>,
    /// The subject of its certificate; needs a TLS listener, which this version does not have.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "String")]
    pub(super) certificate: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRule {
    /// The name in metrics, logs and traces.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// `allow` unless it says `deny`.
    #[serde(default)]
    pub(super) action: WrittenAction,
    /// Names, `*.` wildcards, addresses, ranges; `*` for every name.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(super) hosts: Vec<Spanned<String>>,
    /// Ports and ranges of ports; by default 443 for tunnels and 80 for plain HTTP.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "Vec<WrittenPort>", length(min = 1))]
    pub(super) ports: Option<Vec<Spanned<WrittenPort>>>,
    /// Only plain HTTP below this path.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "String")]
    pub(super) path: Option<Spanned<String>>,
    /// Only these clients; by default everyone.
    #[serde(default, deserialize_with = "not_null")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(super) clients: Option<Vec<Spanned<String>>>,
    /// Ranges the hosts may resolve to although they are special-purpose.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) addresses: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WrittenAction {
    #[default]
    Allow,
    Deny,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a port such as 8443, a range such as 8000-8100, or \"*\""
)]
pub(super) enum WrittenPort {
    /// One port.
    One(u16),
    /// `8000-8100`, or `*`.
    Text(String),
}

impl Document {
    /// Nothing but comments, most likely a template that rendered nothing: taken for a policy, it
    /// would drop the deny rules that were in force.
    pub(super) fn says_nothing(&self) -> bool {
        self.mode.is_none() && self.clients.is_none() && self.rules.is_none()
    }
}

/// Reads a value that may be left out, but not be `null`: `clients:` with nothing behind it must
/// not come to mean everyone.
fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
