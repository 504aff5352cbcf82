//! Sockets of load and origin, with buffers that the kernel sizes unless they are given a size.

use std::io;
use std::sync::OnceLock;

use tokio::net::TcpSocket;

static BYTES: OnceLock<u32> = OnceLock::new();

/// For all sockets from now on.
pub(crate) fn have_buffers_of(bytes: u32) {
    BYTES.set(bytes).expect("one size");
}

pub(crate) fn new() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = BYTES.get() {
        // The kernel takes twice what it is told, for what it keeps besides (socket(7)).
        socket.set_send_buffer_size(bytes / 2)?;
        socket.set_recv_buffer_size(bytes / 2)?;
    }
    Ok(socket)
}
