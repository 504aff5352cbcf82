//! The client's side of one connection: its socket, and how far its requests have got.
//!
//! hyper parses the heads, but two things about a connection are decided here: which timeout
//! applies (none while a request is being answered, else the header or the keep-alive one), and
//! who answers a head that cannot be parsed. hyper would, in words of its own and without telling
//! anybody; so what it writes while no request is being answered is dropped, and the
//! connection's task answers from the table of reasons like everywhere else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the bytes on a connection say about its requests.
///
/// Written and read by one task; atomic only because that task moves between threads.
#[derive(Debug)]
pub(crate) struct Progress {
    opened: Instant,
    /// When the current state began, in milliseconds after `opened`.
    since: AtomicU64,
    /// Requests whose response is not whole yet.
    in_flight: AtomicU32,
    /// Whether any request has been read.
    served: AtomicBool,
    /// Whether bytes of a next head have come.
    head_begun: AtomicBool,
    /// Whether content of the request is still to come.
    uploading: AtomicBool,
    /// Whether the client speaks HTTP/1.0, to which a close can mean the end of a response.
    http_10: AtomicBool,
    /// Whether that head is an `OPTIONS` of a URI without a path.
    asterisk: AtomicBool,
    /// Whether the client has closed its side.
    finished: AtomicBool,
    /// Whether everything written so far has been taken by the socket.
    flushed: AtomicBool,
    /// Whether an answer of hyper's own was dropped.
    dropped_answer: AtomicBool,
    /// Wakes the reader from whom the end of the client's data was held back.
    end_held_back: AtomicWaker,
}

/// What a connection that answers no request is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// A request is being answered: the client is not what is waited for.
    Busy,
    /// The rest of a head, since this long.
    Head(Duration),
    /// The first byte on a new connection, since this long.
    First(Duration),
    /// The next request on a kept-alive connection, since this long.
    Next(Duration),
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            since: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            served: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            uploading: AtomicBool::new(false),
            http_10: AtomicBool::new(false),
            asterisk: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            dropped_answer: AtomicBool::new(false),
            end_held_back: AtomicWaker::new(),
        }
    }

    /// What is waited for now.
    pub(crate) fn waiting(&self) -> Waiting {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Waiting::Busy;
        }
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed));
        let waited = self.opened.elapsed().saturating_sub(since);
        if self.head_begun.load(Ordering::Relaxed) {
            Waiting::Head(waited)
        } else if self.served.load(Ordering::Relaxed) {
            Waiting::Next(waited)
        } else {
            Waiting::First(waited)
        }
    }

    /// A head was read whole; the guard lives until its response is.
    pub(crate) fn request_begun(self: &Arc<Self>, version: Version) -> InFlight {
        self.http_10
            .store(version == Version::HTTP_10, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Whether the head just read was an `OPTIONS` whose URI has no path.
    ///
    /// The parser makes `/` of an empty path, so this is read off the bytes (RFC 9112 §3.2.4).
    pub(crate) fn asks_for_asterisk(&self) -> bool {
        self.asterisk.load(Ordering::Relaxed)
    }

    /// Content of the request in flight begins to stream.
    pub(crate) fn upload_begun(&self) {
        self.uploading.store(true, Ordering::Relaxed);
    }

    /// Content of the request in flight has been read whole, or nobody reads it any more.
    pub(crate) fn upload_ended(&self) {
        self.uploading.store(false, Ordering::Relaxed);
    }

    /// Whether content of the request in flight is still to come.
    pub(crate) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed)
    }

    /// Whether a close would look like the regular end of a response: to HTTP/1.0 it may.
    pub(crate) fn close_would_deceive(&self) -> bool {
        self.http_10.load(Ordering::Relaxed)
    }

    /// Whether any request has been read.
    pub(crate) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether the client will send nothing more.
    pub(crate) fn client_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Whether the socket has taken everything that was written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Whether an answer of hyper's own to a head it could not parse may have left.
    ///
    /// That takes a pipelining client that does not read: its earlier responses were still on
    /// their way, so hyper's could not be told from them.
    pub(crate) fn was_answered_by_hyper(&self) -> bool {
        self.has_served() && !self.dropped_answer.load(Ordering::Relaxed)
    }

    fn restart_clock(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(since, Ordering::Relaxed);
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.finished.store(true, Ordering::Relaxed);
        } else if self.in_flight.load(Ordering::Relaxed) == 0
            && !self.head_begun.swap(true, Ordering::Relaxed)
        {
            self.restart_clock();
            self.asterisk
                .store(is_options_without_path(bytes), Ordering::Relaxed);
        }
    }

    /// Whether an answer has not left yet.
    ///
    /// RFC 9112 §9.6: a client that closes its side then still wants it. hyper takes the end of its
    /// data for the end of the client, so that is held back; content that it cuts short is noticed
    /// by whoever reads the content.
    fn owes_answer(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0 || !self.is_flushed()
    }

    /// Nothing is being answered, and all answers have left.
    fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && self.flushed.load(Ordering::Relaxed)
    }
}

/// Keeps a connection busy until the response to one request is whole.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Progress>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.restart_clock();
        // Its last bytes are in hyper's buffer still; the next flush says when they have left.
        self.0.flushed.store(false, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `OPTIONS http://authority SP`: no path and no query after the authority.
fn is_options_without_path(head: &[u8]) -> bool {
    head.strip_prefix(b"OPTIONS http://").is_some_and(|rest| {
        rest.iter()
            .find(|byte| b"/? ".contains(byte))
            .is_some_and(|byte| *byte == b' ')
    })
}

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
            self.progress.end_held_back.register(cx.waker());
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
            self.progress.dropped_answer.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.progress.flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_idle() {
            self.progress.dropped_answer.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        self.progress.flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty: everything written has left.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed.store(true, Ordering::Relaxed);
        self.progress.end_held_back.wake();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_of_a_uri_without_path_asks_for_asterisk_rfc9112_3_2_4() {
        assert!(is_options_without_path(
            b"OPTIONS http://a.example:8080 HTTP/1.1\r\n"
        ));
        assert!(!is_options_without_path(
            b"OPTIONS http://a.example/ HTTP/1.1\r\n"
        ));
        assert!(!is_options_without_path(
            b"OPTIONS http://a.example?q HTTP/1.1\r\n"
        ));
        assert!(!is_options_without_path(
            b"GET http://a.example HTTP/1.1\r\n"
        ));
        assert!(!is_options_without_path(b"OPTIONS http://a.exa"));
    }

    #[test]
    fn a_connection_waits_for_its_first_byte_then_a_head_then_the_next_request() {
        let progress = Arc::new(Progress::new());
        assert!(matches!(progress.waiting(), Waiting::First(_)));
        progress.read(b"GET");
        assert!(matches!(progress.waiting(), Waiting::Head(_)));
        let request = progress.request_begun(Version::HTTP_11);
        assert_eq!(progress.waiting(), Waiting::Busy);
        progress.read(b"content");
        drop(request);
        assert!(matches!(progress.waiting(), Waiting::Next(_)));
    }
}
