//! Reading what nobody looks at.

use std::cell::RefCell;
use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::CHUNK;

thread_local! {
    /// Never written to: it only says how much may come.
    static NOWHERE: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Takes at most so many bytes, or `CHUNK`, off a connection, without a copy of them; 0 at its end.
pub(crate) async fn some(stream: &TcpStream, most: usize) -> io::Result<usize> {
    let take = || {
        NOWHERE.with_borrow_mut(|nowhere| {
            let most = most.min(CHUNK);
            // TRUNC: the kernel tells the length and copies nothing (tcp(7)).
            let (_, length) = recv(stream, &mut nowhere[..most], RecvFlags::TRUNC)?;
            Ok(length)
        })
    };
    stream.async_io(Interest::READABLE, take).await
}
