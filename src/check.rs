//! `outgate check`: what the gateway would say to a request, without sending it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::Uri;

use crate::policy::{Access, Client, Explanation, Policy};
use crate::proxy::Resolver;
use crate::target::{Host, Target, TargetError};

/// What `outgate check` found.
#[derive(Debug)]
pub struct Checked {
    /// Whether the request would be let through to at least one address.
    pub allowed: bool,
    /// For a person.
    pub report: String,
}

/// What is to be checked: `host:port` as `CONNECT` has it, or a plain HTTP URL.
#[derive(Clone, Debug)]
pub struct Question {
    target: Target,
    path: Option<String>,
}

impl std::str::FromStr for Question {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.parse::<Uri>() {
            Ok(uri) if uri.scheme().is_some() => {
                let scheme = uri.scheme_str().unwrap_or_default();
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                let target = Target::from_absolute(scheme, authority)?;
                Ok(Self {
                    target,
                    path: Some(uri.path().to_owned()),
                })
            }
            _ => Ok(Self {
                target: Target::from_authority(text)?,
                path: None,
            }),
        }
    }
}

/// Who is supposed to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A connection from this address.
    Address(IpAddr),
    /// A client of the policy file, by name.
    Name(Arc<str>),
}

impl Default for Asker {
    fn default() -> Self {
        Self::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl From<&str> for Asker {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.into()), Self::Address)
    }
}

impl Asker {
    fn client(&self, policy: &Policy) -> Client {
        match self {
            Self::Address(address) => policy.identify(*address, None),
            Self::Name(name) => Client {
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                name: Some(Arc::clone(name)),
            },
        }
    }
}

/// Judges a question by a policy, then the addresses its host resolves to.
pub async fn check(
    policy: &Arc<Policy>,
    resolver: &Resolver,
    asker: &Asker,
    question: &Question,
) -> Checked {
    let client = asker.client(policy);
    let access = match &question.path {
        Some(path) => Access::Forward { path },
        None => Access::Connect,
    };
    let explanation = policy.explain(&client, &question.target, access);
    let mut report = format!("{explanation}\n");
    if let Some(runner_up) = explanation.runner_up() {
        let _ = writeln!(report, "  next in line: `{}`", runner_up.rule);
    }
    let allowed = judge_addresses(&explanation, resolver, &question.target, &mut report).await;
    Checked { allowed, report }
}

/// Adds the guard's verdict on each address; whether any may be dialled.
async fn judge_addresses(
    explanation: &Explanation,
    resolver: &Resolver,
    target: &Target,
    report: &mut String,
) -> bool {
    let Ok(permit) = explanation.verdict() else {
        return false;
    };
    let addresses = match target.host() {
        Host::Address(address) => vec![*address],
        Host::Name(name) => match resolver.addresses(name).await {
            Ok(addresses) => addresses,
            Err(detail) => {
                let _ = writeln!(report, "  {detail}");
                return false;
            }
        },
    };
    let mut any = false;
    for address in addresses {
        let _ = match permit.admits(address) {
            Ok(()) => {
                any = true;
                writeln!(report, "  {address}: may be dialled")
            }
            Err(prohibited) => writeln!(report, "  address_prohibited: {prohibited}"),
        };
    }
    any
}
