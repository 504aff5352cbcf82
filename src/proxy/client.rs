//! The client's socket as hyper sees it.
//!
//! hyper parses the heads, but two things about a connection are decided here: which timeout
//! applies (`progress.rs`), and who answers a head that cannot be parsed. hyper would, in words of its
//! own and without telling anybody; so what it writes while no request is being answered is dropped,
//! and the connection's task answers from the table of reasons like everywhere else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::progress::Progress;

/// The client's socket as hyper sees it.
#[derive(Debug)]
pub(crate) struct ClientStream {
    socket: TcpStream,
    progress: Arc<Progress>,
}

impl ClientStream {
    pub(crate) fn new(socket: TcpStream, progress: Arc<Progress>) -> Self {
        Self { socket, progress }
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(result) => self.progress.wrote(Some(*result.as_ref().unwrap_or(&0))),
            Poll::Pending => self.progress.wrote(None),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        let first_end = read.is_empty() && !self.progress.client_finished();
        self.progress.read(read);
        if read.is_empty() && self.progress.owes_answer() {
            // The end is told when the answer has left. Whoever reads content learns of it now.
            self.progress.hold_end_back(cx.waker());
            if first_end {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_idle() {
            self.progress.drop_answer();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_idle() {
            self.progress.drop_answer();
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty: everything written has left.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
