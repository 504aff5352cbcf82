//! One rule against one request, and what the verdicts of several rules come to.

use super::path::Cover;
use super::ports::Ports;
use super::rule::{Action, Rule};
use super::{Access, Client};
use crate::reason::Reason;
use crate::target::Target;

/// The port of plain HTTP where a rule names none (RFC 9110 §4.2.1).
const HTTP_PORT: u16 = 80;
/// The port of a tunnel where a rule names none (RFC 9110 §4.2.2).
const TLS_PORT: u16 = 443;

/// Where a rule that names the host stops to match, in the order in which [`Rule::check`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Miss {
    Port,
    Client,
    Method,
    Path,
}

impl Miss {
    /// The reason a client is told.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Port => Reason::PortNotAllowed,
            Self::Client => Reason::ClientNotAllowed,
            Self::Method => Reason::MethodNotAllowed,
            Self::Path => Reason::PathNotAllowed,
        }
    }
}

/// What the rules that name the host come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judgement {
    pub(super) denied_by: Option<u32>,
    pub(super) allowed_by: Option<u32>,
    /// The allow rule that got furthest without matching, and what it stopped at.
    pub(super) nearest: Option<(u32, Miss)>,
}

impl Judgement {
    /// Adds a rule. They come with the most specific first, so the first of its kind stays.
    pub(super) fn add(&mut self, position: u32, action: Action, outcome: Result<(), Miss>) {
        match (action, outcome) {
            (Action::Deny, Ok(())) => self.denied_by = self.denied_by.or(Some(position)),
            (Action::Deny, Err(_)) => {}
            (Action::Allow, Ok(())) => self.allowed_by = self.allowed_by.or(Some(position)),
            (Action::Allow, Err(miss)) => {
                if self.nearest.is_none_or(|(_, other)| miss > other) {
                    self.nearest = Some((position, miss));
                }
            }
        }
    }

    /// The rule that decides, if one does: deny wins over allow.
    pub(super) fn decides(&self) -> Option<u32> {
        self.denied_by.or(self.allowed_by)
    }
}

impl Rule {
    /// Whether the rule, which names the host, matches the rest of the request.
    ///
    /// # Errors
    ///
    /// The first thing that does not match.
    pub(super) fn check(
        &self,
        client: &Client,
        target: &Target,
        access: Access<'_>,
    ) -> Result<(), Miss> {
        if !self.has_port(target.port(), access) {
            return Err(Miss::Port);
        }
        if !self.has_client(client) {
            return Err(Miss::Client);
        }
        let Some(prefix) = &self.path else {
            return Ok(());
        };
        match (access, self.action) {
            (Access::Connect, Action::Allow) => Err(Miss::Method),
            // A tunnel to a port of plain HTTP may carry any path, so also the denied one.
            (Access::Connect, Action::Deny) => Ok(()),
            (Access::Forward { path }, action) => match (prefix.cover(path), action) {
                (Cover::Inside, _) | (Cover::Unclear, Action::Deny) => Ok(()),
                (Cover::Outside, _) | (Cover::Unclear, Action::Allow) => Err(Miss::Path),
            },
        }
    }

    /// Whether it matches every plain request at this port, whoever makes it.
    pub(super) fn has_all_plain_requests(&self, port: u16) -> bool {
        self.clients.is_none() && self.path.is_none() && self.has_some_plain_requests(port)
    }

    /// Whether it matches plain requests at this port, if only of one client for one path.
    pub(super) fn has_some_plain_requests(&self, port: u16) -> bool {
        self.has_port(port, Access::Forward { path: "/" })
    }

    fn has_port(&self, port: u16, access: Access<'_>) -> bool {
        let default = match access {
            Access::Connect if self.path.is_none() => TLS_PORT,
            Access::Connect | Access::Forward { .. } => HTTP_PORT,
        };
        // A deny rule without a port is for all of them, except that its path says nothing about
        // tunnels other than those to port 80.
        let denies_every_port = self.action == Action::Deny
            && self.ports == Ports::Default
            && (self.path.is_none() || access != Access::Connect);
        denies_every_port || self.ports.contains(port, default)
    }

    fn has_client(&self, client: &Client) -> bool {
        let Some(named) = &self.clients else {
            return true;
        };
        client
            .name
            .as_ref()
            .is_some_and(|name| named.binary_search(name).is_ok())
    }
}
