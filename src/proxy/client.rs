//! The client's socket as hyper sees it.
//!
//! hyper parses the heads, but two things about a connection are decided here: which timeout
//! applies (`progress.rs`), and who answers a head that cannot be parsed. hyper would, in words of its
//! own and without telling anybody; so what it writes while no request is being answered is dropped,
//! and the connection's task answers from the table of reasons like everywhere else.
//!
//! The socket is shared with that task, which watches it for a reset: hyper does not look at it while it
//! has content that nobody takes, or a next request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::progress::Progress;

/// The client's socket as hyper sees it.
#[derive(Debug)]
pub(crate) struct ClientStream {
    socket: Arc<TcpStream>,
    progress: Arc<Progress>,
    /// Read by who spoke HTTP on the socket before, and not looked at.
    unread: Bytes,
}

impl ClientStream {
    pub(crate) fn new(socket: Arc<TcpStream>, progress: Arc<Progress>, unread: Bytes) -> Self {
        Self {
            socket,
            progress,
            unread,
        }
    }

    /// What it still has of what was unread, behind what was read `before` that. In memory of its own, not in that of a large
    /// buffer.
    pub(crate) fn into_unread(self, before: &[u8]) -> Bytes {
        Bytes::from([before, &self.unread].concat())
    }

    fn poll_write_once(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match once(&self.socket, Interest::WRITABLE, length, || {
                write(&self.socket)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(result) => self.progress.wrote(Some(*result.as_ref().unwrap_or(&0))),
            Poll::Pending => self.progress.wrote(None),
        }
    }
}

/// Moves bytes once. Fewer than there is `room` for say that the socket has no more, or takes no more, so the next call waits
/// for news of it rather than ask the kernel in vain.
fn once(
    socket: &TcpStream,
    interest: Interest,
    room: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut short = None;
    let moved = socket.try_io(interest, || {
        let moved = call()?;
        if moved == 0 || moved == room {
            return Ok(moved);
        }
        short = Some(moved);
        Err(io::ErrorKind::WouldBlock.into())
    });
    short.map_or(moved, Ok)
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.progress.poll_allowance(cx));
        let before = buffer.filled().len();
        if !self.unread.is_empty() {
            let now = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(now));
            self.progress.read(&buffer.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let room = buffer.remaining();
            let read = once(&self.socket, Interest::READABLE, room, || {
                self.socket.try_read_buf(buffer)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    read?;
                    break;
                }
            }
        }
        let read = &buffer.filled()[before..];
        self.progress.read(read);
        if read.is_empty() && self.progress.owes_answer() {
            // The end is told when the answer has left. Whoever reads content has learned of it.
            self.progress.hold_end_back(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_idle() {
            self.progress.drop_answer();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = self.poll_write_once(cx, bytes.len(), |socket| socket.try_write(bytes));
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.progress.is_idle() {
            self.progress.drop_answer();
            return Poll::Ready(Ok(length));
        }
        let written = self.poll_write_once(cx, length, |socket| socket.try_write_vectored(slices));
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when its own buffer is empty: everything written has left.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        Poll::Ready(shut.map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the client of a test is no upstream"
    )]
    async fn a_turn_that_has_moved_what_it_may_reads_nothing_more_and_writes_what_it_has() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let progress = Arc::new(Progress::new());
        let mut stream = ClientStream::new(Arc::new(socket), Arc::clone(&progress), Bytes::new());
        // Otherwise what is written would be dropped.
        let _in_flight = progress.request_begun(http::Version::HTTP_11);
        let mut piece = [0; 10];
        client.write_all(&[7; 30]).await.unwrap();

        let begun = progress.begin_turn(20);
        stream.read_exact(&mut piece).await.unwrap();
        stream.write_all(&piece).await.unwrap();
        assert_eq!(progress.moved_since(begun), 20);
        let reads = poll_fn(|cx| {
            let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut [0]));
            Poll::Ready(read.is_ready())
        })
        .await;
        assert!(!reads);
        stream.write_all(&[7]).await.unwrap();

        progress.begin_turn(20);
        stream.read_exact(&mut piece).await.unwrap();
    }
}
