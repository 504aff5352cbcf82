//! Tunnels: asked for by `CONNECT` (RFC 9110 §9.3.6) or come to by a protocol switch (§7.8).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Proxy;
use super::connection::{Connection, Held};
use super::relay::{self, Count, Early, Shared, relay};
use super::respond::Failure;
use crate::access::AccessRecord;
use crate::metrics::{Direction, End};
use crate::policy::{Access, Permit};
use crate::reason::Reason;
use crate::target::Target;
use crate::tunnels::{Opening, Tunnel, TunnelRecord};

/// What a side sent before it was reset is handed on as long as the other takes some of it within this time: a slow
/// link needs that long until the kernel's buffer has room again.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// A connected upstream that takes over from HTTP once the client has its answer.
#[derive(Debug)]
pub(crate) struct Takeover {
    upstream: TcpStream,
    from_upstream: Bytes,
    opening: Opening,
}

/// Answers `CONNECT`: dials first, so that a 200 means the upstream is there.
pub(crate) async fn connect(
    connection: &Connection,
    request: &Request<Incoming>,
    record: &mut AccessRecord,
) -> Result<(), Failure> {
    if has_content(request.headers()) {
        return Err(Failure::bad_request(
            "CONNECT has no content (RFC 9110 section 9.3.6).",
        ));
    }
    let uri = request.uri();
    if uri.scheme().is_some() {
        return Err(Failure::bad_request(
            "CONNECT names host:port and nothing else (RFC 9112 section 3.2.3).",
        ));
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    let target =
        Target::from_authority(authority.unwrap_or_default()).map_err(Failure::bad_request)?;
    record.set_target(target.clone());
    let permit = connection.authorize(&target, Access::Connect, record)?;
    let (upstream, address, _) = connection.proxy.reach(&permit, &target, record).await?;
    let takeover = Takeover::new(connection, record, &permit, target, upstream, address)?;
    connection.hand_over(takeover);
    Ok(())
}

impl Takeover {
    pub(crate) fn new(
        connection: &Connection,
        record: &mut AccessRecord,
        permit: &Permit,
        target: Target,
        upstream: TcpStream,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        let traffic = record
            .count_traffic()
            .ok_or_else(|| Failure::new(Reason::Internal, "a tunnel without a rule"))?;
        let opening = Opening {
            client: connection.client,
            user: record.user().cloned(),
            path: None,
            generation: record.generation(),
            target,
            upstream: address,
            rule: Arc::clone(permit.rule()),
            traffic,
            trace_id: record.trace_id(),
            span: record.span(),
        };
        Ok(Self {
            upstream,
            from_upstream: Bytes::new(),
            opening,
        })
    }

    /// Came of a plain request for a path; the upstream may have sent bytes right behind its 101.
    pub(crate) fn by_switch(mut self, path: &str, from_upstream: Bytes) -> Self {
        self.opening.path = Some(path.into());
        self.from_upstream = from_upstream;
        self
    }

    /// Starts the tunnel in a task of its own, which is small: the one that spoke HTTP is not.
    pub(crate) fn start(self, proxy: &Proxy, client: TcpStream, from_client: Bytes, held: Held) {
        let shared = Shared {
            pipes: Arc::clone(&proxy.pipes),
            turns: Arc::clone(&proxy.turns),
            client: proxy.turns.slot(self.opening.client.ip()),
        };
        let record = proxy.tunnels.open(self.opening);
        proxy.judge_again(record.tunnel());
        let early = Early {
            from_client,
            from_upstream: self.from_upstream,
        };
        tokio::spawn(run(client, self.upstream, early, shared, record, held));
    }
}

async fn run(
    client: TcpStream,
    upstream: TcpStream,
    early: Early,
    shared: Shared,
    mut record: TunnelRecord,
    _held: Held,
) {
    let end = tokio::select! {
        biased;
        end = record.tunnel().asked_to_end() => Err(end),
        end = relay(&client, &upstream, early, &shared, record.tunnel()) => Ok(end),
        end = reset_unseen(&client, &upstream, record.tunnel()) => Err(end),
    };
    let end = end.unwrap_or_else(|end| {
        // Both sides learn that this is no regular end of their data.
        relay::reset(&client);
        relay::reset(&upstream);
        end
    });
    // Both sockets are gone before the tunnel is accounted for as ended.
    drop((client, upstream));
    record.ended(end);
}

/// Resolves when a side has been reset and the relay does not see it, because the other side takes nothing: it reads only
/// what it can hand on.
async fn reset_unseen(client: &TcpStream, upstream: &TcpStream, tunnel: &Tunnel) -> End {
    let end = tokio::select! {
        _failed = client.ready(Interest::ERROR) => End::ClientReset,
        _failed = upstream.ready(Interest::ERROR) => End::UpstreamReset,
    };
    loop {
        tokio::time::sleep(LAST_BYTES).await;
        if tunnel.idle() >= LAST_BYTES {
            return end;
        }
    }
}

impl Count for Tunnel {
    fn moved(&self, direction: Direction, bytes: usize) {
        Self::moved(self, direction, bytes);
    }
}

fn has_content(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}
