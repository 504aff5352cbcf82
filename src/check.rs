//! What the gateway would say to a request, without sending it: `outgate check` and the
//! inspector's `/explain`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::Uri;

use crate::metrics::Outcome;
use crate::policy::{Access, Client, Explanation, Permit, Policy, Prohibited};
use crate::proxy::{Dialer, Resolver};
use crate::reason::Reason;
use crate::target::{Host, Target, TargetError};

/// A request judged as the gateway would, rules and addresses.
#[derive(Debug)]
pub struct Checked {
    /// Who is supposed to ask.
    pub client: Client,
    /// What the rules say.
    pub explanation: Explanation,
    /// What is said of each address; none where the rules refuse.
    pub addresses: Vec<Judged>,
    /// What the request would be counted as.
    pub outcome: Outcome,
    /// Why, in the words a client is told.
    pub reason: Reason,
    /// What stands in the way although the rules let it through, in words for an operator; else empty.
    pub detail: String,
}

/// An address that the target resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The address.
    pub address: IpAddr,
    /// What would be done with it.
    pub verdict: AddressVerdict,
}

/// What would be done with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It may be dialled.
    Admitted,
    /// The guard refuses it.
    Prohibited(Prohibited),
    /// A gateway of this configuration listens there.
    Loop,
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

/// No client of the policy has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy knows no client {0:?}; name one of its clients, or an address")]
pub struct UnknownClient(Arc<str>);

impl Asker {
    fn client(&self, policy: &Policy) -> Result<Client, UnknownClient> {
        match self {
            Self::Address(address) => Ok(policy.identify(*address, None)),
            Self::Name(name) if policy.clients().know(name) => Ok(Client {
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                name: Some(Arc::clone(name)),
            }),
            Self::Name(name) => Err(UnknownClient(Arc::clone(name))),
        }
    }
}

/// Judges a question by a policy, then the addresses its host resolves to.
///
/// # Errors
/// When the policy does not know who asks.
pub async fn check(
    policy: &Arc<Policy>,
    resolver: &Resolver,
    dialer: &Dialer,
    asker: &Asker,
    question: &Question,
) -> Result<Checked, UnknownClient> {
    let client = asker.client(policy)?;
    let target = &question.target;
    let access = match &question.path {
        Some(path) => Access::Forward { path },
        None => Access::Connect,
    };
    let explanation = policy.explain(&client, target, access);
    let (mut addresses, mut detail) = (Vec::new(), String::new());
    let (outcome, reason) = match explanation.verdict() {
        Err(denial) => (Outcome::Denied, policy.reason_told(&client, denial)),
        Ok(permit) => match resolve(resolver, target.host()).await {
            Ok(resolved) => {
                addresses = judge(permit, dialer, &resolved, target.port());
                let (outcome, reason, told) = conclude(permit, &addresses);
                detail = told.to_owned();
                (outcome, reason)
            }
            Err((reason, told)) => {
                detail = told;
                (Outcome::Failed, reason)
            }
        },
    };
    Ok(Checked {
        client,
        explanation,
        addresses,
        outcome,
        reason,
        detail,
    })
}

async fn resolve(resolver: &Resolver, host: &Host) -> Result<Vec<IpAddr>, (Reason, String)> {
    match host {
        Host::Address(address) => Ok(vec![*address]),
        Host::Name(name) => resolver.addresses(name).await,
    }
}

fn judge(permit: &Permit, dialer: &Dialer, addresses: &[IpAddr], port: u16) -> Vec<Judged> {
    let mut judged = Vec::with_capacity(addresses.len());
    for address in addresses {
        let verdict = match permit.admits(*address) {
            Err(prohibited) => AddressVerdict::Prohibited(prohibited),
            Ok(())
                if dialer
                    .is_gateway(SocketAddr::new(*address, port))
                    .is_ok_and(|own| own) =>
            {
                AddressVerdict::Loop
            }
            Ok(()) => AddressVerdict::Admitted,
        };
        judged.push(Judged {
            address: *address,
            verdict,
        });
    }
    judged
}

/// What comes of the addresses of a target that the rules let through.
fn conclude(permit: &Permit, addresses: &[Judged]) -> (Outcome, Reason, &'static str) {
    let any = |verdict| addresses.iter().any(|judged| judged.verdict == verdict);
    if any(AddressVerdict::Loop) {
        let told = "it is at an address of this gateway";
        (Outcome::Failed, Reason::LoopDetected, told)
    } else if !any(AddressVerdict::Admitted) {
        let told = "the guard refuses every address of it";
        (Outcome::Denied, Reason::AddressProhibited, told)
    } else if let Some(denial) = permit.would_deny() {
        (Outcome::WouldDeny, denial.reason(), "")
    } else {
        (Outcome::Allowed, Reason::Ok, "")
    }
}

impl Checked {
    /// Whether the request would be let through to at least one address.
    #[must_use]
    pub fn is_let_through(&self) -> bool {
        matches!(self.outcome, Outcome::Allowed | Outcome::WouldDeny)
    }
}

/// For a person, in several lines.
impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What decides comes first, be it the rules or what came after them.
        let Self {
            explanation,
            detail,
            ..
        } = self;
        write!(f, "{}: ", explanation.target())?;
        if detail.is_empty() {
            writeln!(f, "{explanation}")?;
        } else {
            let reason = self.reason.label();
            writeln!(f, "{reason}: {explanation}, but {detail}")?;
        }
        for considered in explanation.considered() {
            writeln!(f, "  {considered}")?;
        }
        if let Some(runner_up) = self.explanation.runner_up() {
            writeln!(f, "  next in line: `{}`", runner_up.rule)?;
        }
        self.addresses
            .iter()
            .try_for_each(|judged| writeln!(f, "  {judged}"))
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match &self.verdict {
            AddressVerdict::Admitted => write!(f, "{address}: may be dialled"),
            AddressVerdict::Prohibited(prohibited) => {
                write!(f, "{}: {prohibited}", Reason::AddressProhibited.label())
            }
            AddressVerdict::Loop => {
                write!(
                    f,
                    "{}: {address} is this gateway",
                    Reason::LoopDetected.label()
                )
            }
        }
    }
}
