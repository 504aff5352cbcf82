//! What every connection here has, from clients and to upstreams.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A connection that is silent this long is probed. With the nine probes of the kernel, a quarter of it
/// apart, a dead peer is noticed after some three minutes.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// Bytes for a peer that the kernel takes beyond those on their way (`TCP_NOTSENT_LOWAT`), but for the end of a segment. It would
/// hold megabytes for each that takes less than arrives, and send them at once when it takes more, before anybody else's.
///
/// With half of it a thousand tunnels take more CPU, with twice they move a fifth less. With few there is no difference.
const MOST_UNSENT: u32 = 128 * 1024;

/// Sets that small writes leave at once, that little waits to be sent, and that dead peers are found. On Linux, what is accepted
/// has its listener's options.
///
/// # Errors
/// When it is no TCP socket.
pub(crate) fn tune(socket: impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_AFTER / 4);
    socket.set_tcp_keepalive(&probes)?;
    // A sandboxed kernel may have no such option: more memory is no reason to serve nobody.
    let _ = socket.set_tcp_notsent_lowat(MOST_UNSENT);
    Ok(())
}

/// What the kernel says that [`tune`] has set.
#[cfg(test)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: bool,
    pub(crate) probe_after: Duration,
    probe_every: Duration,
    /// None on a kernel that has no such option.
    pub(crate) most_unsent: Option<u32>,
}

#[cfg(test)]
impl Options {
    pub(crate) fn of(socket: impl AsFd) -> Self {
        let socket = SockRef::from(&socket);
        Self {
            nodelay: socket.tcp_nodelay().unwrap(),
            keepalive: socket.keepalive().unwrap(),
            probe_after: socket.tcp_keepalive_time().unwrap(),
            probe_every: socket.tcp_keepalive_interval().unwrap(),
            most_unsent: socket.tcp_notsent_lowat().ok(),
        }
    }
}
