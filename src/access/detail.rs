//! What went wrong, as values: it is put into words for a log line, and for nobody else.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use http::header::InvalidHeaderValue;

use crate::policy::{Denial, Prohibited};
use crate::target::TargetError;

/// Behind a reason, the particulars that only the log may show.
///
/// Making one allocates nothing, except for [`Detail::Panicked`].
#[derive(Debug, thiserror::Error)]
pub enum Detail {
    /// Words that are the same each time.
    #[error("{0}")]
    Said(&'static str),
    /// The rule that refused, or that came nearest.
    #[error("{0}")]
    Denied(#[from] Denial),
    /// The range that prohibits the address.
    #[error("{0}")]
    Prohibited(#[from] Prohibited),
    /// The target is at an address of the gateway.
    #[error("{0} is this gateway")]
    Gateway(SocketAddr),
    /// The target names no destination.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The target cannot stand in a `Host` field.
    #[error("{0}")]
    Host(#[from] InvalidHeaderValue),
    /// The host cannot be asked for.
    #[error("no name of DNS: {0}")]
    Name(#[from] ProtoError),
    /// What the name servers answered to a query of this type.
    #[error("{0}: {1}")]
    Lookup(RecordType, NetError),
    /// They answered without an address, with this code.
    #[error("{0}: the answer holds no address ({1})")]
    NoAddress(RecordType, ResponseCode),
    /// They did not answer within this time.
    #[error("no answer within {0:?}")]
    Unanswered(Duration),
    /// What the kernel said of an address.
    #[error("{0}: {1}")]
    Dial(SocketAddr, io::Error),
    /// None of the addresses answered within this time.
    #[error("{0:?}: no connection within {1:?}")]
    Unconnected(Vec<SocketAddr>, Duration),
    /// The exchange with the upstream failed.
    #[error("{}", Causes(.0))]
    Exchange(hyper::Error),
    /// The response broke off.
    #[error("within the response: {0}")]
    Response(hyper::Error),
    /// The upstream did not begin its response within this time.
    #[error("no response within {0:?}")]
    Unresponsive(Duration),
    /// The client did not go on with its content for this time.
    #[error("nothing more of the content within {0:?}")]
    Unfinished(Duration),
    /// What the client sent is no request head.
    #[error("{0}.")]
    Head(hyper::Error),
    /// A defect, in its own words.
    #[error("panicked: {0}")]
    Panicked(Box<str>),
}

impl From<&'static str> for Detail {
    fn from(said: &'static str) -> Self {
        Self::Said(said)
    }
}

/// An error and what caused it; hyper's own text names only the first.
struct Causes<'a>(&'a hyper::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
