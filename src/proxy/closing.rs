//! The end of a connection on which no request was parsed, and of any that has its last answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use opentelemetry::trace::TraceId;
use tokio::net::TcpStream;

use super::Proxy;
use super::respond::{self, Failure};
use crate::trace::context::random_trace_id;

/// How long a client may take to read an answer that ends its connection.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes read of a client that has its last answer. One that stops when it reads the answer has sent less: what its
/// kernel held by then (4 MiB at most, as Linux comes), and as much again on its way and in ours.
const MOST_UNHEARD: usize = 8 * 1024 * 1024;

/// Answers a connection on which no request was parsed.
pub(super) async fn refuse(
    proxy: &Proxy,
    socket: &TcpStream,
    client: SocketAddr,
    failure: &Failure,
) {
    let trace_id = random_trace_id();
    tell(
        proxy,
        client,
        failure,
        Some(failure.reason.status()),
        trace_id,
    );
    let answer = respond::raw(failure, trace_id, &proxy.config.via);
    // It fits a fresh socket's buffer; a client that has left no room for it is not waited for long.
    let writable = tokio::time::timeout(LINGER, socket.writable()).await;
    if matches!(writable, Ok(Ok(()))) && socket.try_write(&answer).is_ok() {
        linger(socket, false).await;
    }
}

/// Notes one that cannot be answered, or is by hyper.
pub(super) fn refuse_silently(proxy: &Proxy, client: SocketAddr, failure: &Failure) {
    tell(proxy, client, failure, None, random_trace_id());
}

/// Writes its line. The client's address is known from when it was accepted: the socket does not tell it
/// any more when the client has reset.
fn tell(
    proxy: &Proxy,
    client: SocketAddr,
    failure: &Failure,
    status: Option<StatusCode>,
    trace_id: TraceId,
) {
    if !proxy.config.access_log {
        return;
    }
    tracing::info!(
        target: "access",
        {
        client.address = %client.ip(),
        client.port = client.port(),
        http.response.status_code = status.map(|status| status.as_u16()),
        result = "failed",
        reason = failure.reason.label(),
        detail = failure.detail.as_ref().map(tracing::field::display),
        %trace_id,
        },
        "connection refused"
    );
}

/// Closes our side and reads on for a moment: closing with unread bytes would be a reset, which
/// takes the answer from a client that is still sending (RFC 9112 §9.6).
pub(super) async fn linger(socket: &TcpStream, client_finished: bool) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
    if client_finished {
        return;
    }
    let drained = async {
        // Not within the future, which a connection has from its start.
        let mut scrap = vec![0; 4096];
        let mut unheard = 0;
        while unheard < MOST_UNHEARD && socket.readable().await.is_ok() {
            match socket.try_read(&mut scrap) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                Ok(read) => unheard += read,
                Err(_) => {}
            }
            // A socket that has more is ready at once, and nobody is to wait for what nobody wants.
            tokio::task::yield_now().await;
        }
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
