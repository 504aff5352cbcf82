//! Accepting connections, until the drain closes the listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::admission::Admitted;
use super::connection::{self, Held};
use super::respond::Failure;
use super::{Proxy, closing, is_out_of_descriptors};
use crate::access::millis;
use crate::drain::{Drain, Phase};
use crate::limits::{self, For};
use crate::listen::BACKLOG;
use crate::metrics::ListenerKind;
use crate::reason::Reason;

/// First pause after a failed accept; doubled with each further failure.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(5);
/// The longest pause after a failed accept: descriptors may be free again at any time.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Accepts connections until the drain closes the listeners; it waits for that from when this is called. They have the options
/// of their listener, which [`Listeners::bind`](crate::listen::Listeners::bind) sets.
pub fn serve(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    mut drain: Drain,
) -> impl Future<Output = ()> + Send + 'static {
    let accepting = drain.accepting();
    async move {
        accept_until_closing(&proxy, &listener, &mut drain).await;
        accept_the_rest(&proxy, listener, &drain);
        drop(accepting);
    }
}

async fn accept_until_closing(proxy: &Arc<Proxy>, listener: &TcpListener, drain: &mut Drain) {
    let mut backoff = ACCEPT_BACKOFF;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.reaches(Phase::Closing) => return,
        };
        match accepted {
            Ok((socket, client)) => {
                backoff = ACCEPT_BACKOFF;
                admit(proxy, socket, client, drain);
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end give some back.
                tracing::warn!(%error, pause_ms = millis(backoff), "cannot accept");
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = drain.reaches(Phase::Closing) => return,
                }
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

/// Accepts what the kernel has accepted already, which closing the listener would reset.
///
/// The kernel is asked itself, for tokio asks it only when it has been told of a connection. There were no more than
/// the backlog, so whoever goes on connecting does not keep this from its end. Between the last look and the close,
/// the kernel may accept one more, which it then resets: it has no way to refuse new ones and keep the others.
fn accept_the_rest(proxy: &Arc<Proxy>, listener: TcpListener, drain: &Drain) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    for _ in 0..=BACKLOG {
        let accepted = listener.accept().and_then(|(socket, client)| {
            socket.set_nonblocking(true)?;
            Ok((TcpStream::from_std(socket)?, client))
        });
        match accepted {
            Ok((socket, client)) => admit(proxy, socket, client, drain),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                if is_out_of_descriptors(&error) {
                    return;
                }
            }
        }
    }
}

/// Serves a connection in a task of its own, or tells it at once that there is no room.
///
/// The policy judges `client`, and the connection is counted when this returns. Any stream will do for a socket, but where it is
/// not of TCP, a connection that is reset looks ended.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn admit(proxy: &Arc<Proxy>, socket: TcpStream, client: SocketAddr, drain: &Drain) {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    match admitted(proxy, &socket, client) {
        Ok(admitted) => {
            // Counted now: until its task runs, a drain would take nobody to be there.
            let held = Held::new(proxy.metrics.connection(ListenerKind::Proxy), admitted);
            let proxy = Arc::clone(proxy);
            tokio::spawn(connection::serve(
                proxy,
                socket,
                client,
                drain.clone(),
                held,
            ));
        }
        Err(reason) => {
            proxy.metrics.count_rejected(reason);
            // Bounded: without a place even for the refusal, the connection is just closed.
            let place = proxy.admission.place_for_refusal();
            let Some(place) = place.filter(|_| !limits::is_reserved(&socket, For::Refusal)) else {
                return;
            };
            let proxy = Arc::clone(proxy);
            tokio::spawn(async move {
                let failure = Failure::plain(reason);
                closing::refuse(&proxy, &socket, client, &failure).await;
                drop(place);
            });
        }
    }
}

fn admitted(proxy: &Proxy, socket: &TcpStream, client: SocketAddr) -> Result<Admitted, Reason> {
    if limits::is_reserved(socket, For::Client) {
        // What is kept for later stands in the way of who is here now.
        proxy.pool.sweep(|_, _| false);
        return Err(Reason::ConnectionLimit);
    }
    proxy.admission.admit(client.ip(), || {
        let in_force = proxy.enforced.load();
        in_force.policy().identify(client.ip(), None).name
    })
}
