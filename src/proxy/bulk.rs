//! Large content of a response. Once its head has left, it is moved like the bytes of a tunnel.
//!
//! hyper would copy it to this process and back. So both connections are taken out of its hands for as long as the
//! content lasts, of which its length tells the end, and HTTP goes on with them behind it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::body::{Account, BrokenOff};
use super::pool::Pool;
use super::progress::Progress;
use super::relay::{self, Shared};
use super::upstream::Loose;
use crate::access::Traffic;
use crate::config::Config;
use crate::metrics::{Direction, End};
use crate::reason::Reason;
use crate::target::Target;

/// From so many bytes on it costs less than a copy to leave hyper and to come back. With half of them it costs as much.
pub(super) const LEAST: u64 = 256 * 1024;

/// An upstream's socket within a response.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) socket: TcpStream,
    /// What has been read of the content.
    pub(super) early: Bytes,
    /// Of the whole content.
    pub(super) length: u64,
    pub(super) traffic: Arc<Traffic>,
    pub(super) loose: Loose,
    /// Where the connection goes in the end.
    pub(super) home: (Arc<Pool>, Target),
}

/// Content that is next on a client's connection.
#[derive(Debug)]
pub(super) struct Bulk {
    source: Source,
    account: Account,
}

impl Bulk {
    pub(super) fn new(source: Source, account: Account) -> Self {
        Self { source, account }
    }

    /// Moves all of it to the client.
    pub(super) async fn pass(
        &mut self,
        client: &TcpStream,
        progress: &Progress,
        shared: &Shared,
    ) -> Result<(), BrokenOff> {
        let Source {
            socket,
            early,
            length,
            traffic,
            ..
        } = &mut self.source;
        let content = relay::Content {
            left: *length - early.len() as u64,
            early: std::mem::take(early),
            upstream: socket,
        };
        let told = |taken| {
            progress.wrote(taken);
            traffic.count(Direction::UpstreamToClient, taken.unwrap_or(0));
        };
        let is_due = || progress.takes_look();
        let passed = relay::pass(content, client, shared, told, is_due).await;
        if let Err(End::UpstreamReset) = passed {
            let detail = "within the response: the connection ended before the content";
            self.account
                .broke_off(Reason::ResponseIncomplete, detail.into());
        }
        passed.map_err(|_| BrokenOff)
    }

    /// Gives it up. If it stood still, that is why.
    pub(super) fn give_up(mut self) {
        self.account.note_stall();
    }

    /// Settles the account of content that the client has whole, and keeps the upstream's connection.
    pub(super) async fn finish(self, config: &Config) {
        let Source {
            socket,
            loose,
            home: (pool, target),
            ..
        } = self.source;
        if let Some(upstream) = loose.go_on(socket, config).await {
            pool.put(&target, upstream);
        }
    }
}
