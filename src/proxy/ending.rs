//! How a connection ends on which HTTP has: as a tunnel, at once, or with a last word.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::closing::{linger, refuse, refuse_silently};
use super::connection::Held;
use super::driver::Ended;
use super::progress::Progress;
use super::respond::Failure;
use super::tunnel::Takeover;
use super::{Proxy, relay};

/// A connection on which HTTP has ended.
pub(super) struct Ending {
    pub(super) socket: TcpStream,
    pub(super) client: SocketAddr,
    /// Bytes behind the last head.
    pub(super) read: Bytes,
    pub(super) takeover: Option<Takeover>,
    pub(super) progress: Arc<Progress>,
    pub(super) held: Held,
}

impl Ending {
    /// Starts the tunnel, or closes at once; what remains is to be said or waited for.
    pub(super) fn conclude(self, proxy: &Proxy, ended: Ended) -> Option<Closing> {
        let Self {
            socket,
            client,
            read,
            takeover,
            progress,
            held,
        } = self;
        if let (Ended::Refused(failure) | Ended::RefusedSilently(failure), None) =
            (&ended, &takeover)
        {
            proxy.metrics.count_rejected(failure.reason);
        }
        let failure = match (ended, takeover) {
            (Ended::Done, Some(takeover)) => {
                takeover.start(proxy, socket, read, held);
                return None;
            }
            // The answer is not out: what follows it would be garbled, and what was sent of it must not
            // look whole.
            (_, Some(_)) | (Ended::Stalled, None) => {
                relay::reset(&socket);
                return None;
            }
            (Ended::Done, None) => None,
            (Ended::Refused(failure), None) if progress.is_flushed() => Some(failure),
            (Ended::Refused(failure), None) => {
                // It would be garbled, for whoever is not even reading the last answer.
                refuse_silently(proxy, client, &failure);
                relay::reset(&socket);
                return None;
            }
            (Ended::RefusedSilently(failure), None) => {
                refuse_silently(proxy, client, &failure);
                if progress.close_would_deceive() {
                    relay::reset(&socket);
                }
                return None;
            }
            // Interrupted for content that is not there, as it is for none.
            (Ended::Gone | Ended::Interrupted, None) => {
                if progress.close_would_deceive() {
                    relay::reset(&socket);
                }
                return None;
            }
            // It has had its answers.
            (Ended::TimedOut, None) => return None,
        };
        Some(Closing {
            socket,
            client,
            has_finished: progress.client_finished(),
            failure,
            _held: held,
        })
    }
}

/// A connection that is closed once the client has its last answer.
pub(super) struct Closing {
    socket: TcpStream,
    client: SocketAddr,
    /// Whether the client has closed its side.
    has_finished: bool,
    /// What is still to be told.
    failure: Option<Failure>,
    _held: Held,
}

impl Closing {
    pub(super) async fn finish(self, proxy: &Proxy) {
        match &self.failure {
            Some(failure) => refuse(proxy, &self.socket, self.client, failure).await,
            None => linger(&self.socket, self.has_finished).await,
        }
    }
}
