//! How far the requests of one connection have got, and what it waits for.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::Version;

use crate::reason::Reason;

/// Bytes that take as long to move as a request takes to answer.
const REQUEST: u64 = 64 * 1024;

/// What the bytes on a connection say about its requests.
///
/// Written and read by the task of the connection, which moves between threads. The task of an upload that
/// outlives its response writes what it wants and when it ended, and starts the clock again; only the
/// connection's own counts what was moved.
#[derive(Debug)]
pub(crate) struct Progress {
    opened: Instant,
    /// When the wait for a head or the rest of one began, in milliseconds after `opened`.
    since: AtomicU64,
    /// Requests whose response is not whole yet.
    in_flight: AtomicU32,
    /// Whether the response to the request in flight has begun.
    answering: AtomicBool,
    /// Bytes read from the socket and written to it so far.
    moved: AtomicU64,
    /// With so many bytes moved the turn is over.
    turn_until: AtomicU64,
    /// Whether the client's time is over, and what has come is to be looked at without a turn.
    is_out_of_time: AtomicBool,
    /// Whether the socket has no room: the client does not read.
    is_full: AtomicBool,
    /// Whether content is waited for that the client does not send.
    wants_content: AtomicBool,
    /// Why nothing moved any more.
    stalled: OnceLock<Reason>,
    /// Whether any request has been read.
    served: AtomicBool,
    /// Whether bytes of a next head have come.
    head_begun: AtomicBool,
    /// Whether content of the request is still to come.
    uploading: AtomicBool,
    /// Whether the client speaks HTTP/1.0, to which a close can mean the end of a response.
    http_10: AtomicBool,
    /// Whether the client has closed its side.
    finished: AtomicBool,
    /// Whether everything written so far has been taken by the socket.
    flushed: AtomicBool,
    /// Whether an answer of hyper's own was dropped.
    dropped_answer: AtomicBool,
    /// Whether content is next that hyper does not write.
    is_bulk_next: AtomicBool,
    /// Wakes the reader from whom the end of the client's data was held back.
    end_held_back: AtomicWaker,
    /// Wakes who waits for content, in whichever task, when the client has closed its side.
    content_reader: AtomicWaker,
}

/// What a connection that answers no request is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// A request is being answered: the client is not what is waited for.
    Busy,
    /// A response has begun and has not left whole, or content of a request outlives it.
    Content {
        /// Bytes that have moved so far.
        moved: u64,
        /// Whether it is for the upstream to go on with its response.
        by_upstream: bool,
    },
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
            answering: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            turn_until: AtomicU64::new(0),
            is_out_of_time: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            wants_content: AtomicBool::new(false),
            stalled: OnceLock::new(),
            served: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            uploading: AtomicBool::new(false),
            http_10: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            dropped_answer: AtomicBool::new(false),
            is_bulk_next: AtomicBool::new(false),
            end_held_back: AtomicWaker::new(),
            content_reader: AtomicWaker::new(),
        }
    }

    /// What is waited for now.
    pub(crate) fn waiting(&self) -> Waiting {
        let is_answered = self.in_flight.load(Ordering::Relaxed) == 0;
        if !is_answered && !self.answering.load(Ordering::Relaxed) {
            return Waiting::Busy;
        }
        if !is_answered || self.is_uploading() || !self.is_flushed() {
            return Waiting::Content {
                moved: self.moved.load(Ordering::Relaxed),
                by_upstream: !is_answered && !self.is_up_to_client(),
            };
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
        self.answering.store(false, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Content of the request in flight begins to stream.
    pub(crate) fn upload_begun(&self) {
        self.uploading.store(true, Ordering::Relaxed);
    }

    /// Content of the request in flight has been read whole, or nobody reads it any more.
    pub(crate) fn upload_ended(&self) {
        self.restart_clock();
        self.wants_content(false);
        self.uploading.store(false, Ordering::Relaxed);
    }

    /// Notes whether the client is what an upload waits for.
    pub(crate) fn wants_content(&self, wants: bool) {
        self.wants_content.store(wants, Ordering::Relaxed);
    }

    /// Whether the client is what an upload waits for.
    pub(crate) fn awaits_content(&self) -> bool {
        self.wants_content.load(Ordering::Relaxed)
    }

    /// Notes that content has not moved for too long, and whose fault that is.
    pub(crate) fn stall(&self) {
        let reason = if self.is_up_to_client() {
            Reason::ContentTimeout
        } else {
            Reason::ResponseTimeout
        };
        let _ = self.stalled.set(reason);
    }

    /// Whether it is the client that does not take content, or does not send any.
    fn is_up_to_client(&self) -> bool {
        self.is_full.load(Ordering::Relaxed) || self.awaits_content()
    }

    /// Why content has not moved for too long, if so.
    pub(crate) fn stalled(&self) -> Option<Reason> {
        self.stalled.get().copied()
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
        self.finished.load(Ordering::Acquire)
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

    /// Notes what was read from the socket.
    pub(crate) fn read(&self, bytes: &[u8]) {
        self.count_moved(bytes.len());
        if bytes.is_empty() {
            // Whoever sees it sees the content that was handed on before.
            self.finished.store(true, Ordering::Release);
            self.content_reader.wake();
        } else if self.in_flight.load(Ordering::Relaxed) == 0
            && !self.is_uploading()
            && !self.head_begun.swap(true, Ordering::Relaxed)
        {
            self.restart_clock();
        }
    }

    /// Notes what the socket took; nothing says that it has no room.
    pub(crate) fn wrote(&self, bytes: Option<usize>) {
        self.flushed.store(false, Ordering::Relaxed);
        self.is_full.store(bytes.is_none(), Ordering::Relaxed);
        self.count_moved(bytes.unwrap_or(0));
    }

    /// Has what has come looked at once, whoever's turn it is.
    pub(crate) fn ask_for_look(&self) {
        self.is_out_of_time.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for, since it was last taken.
    pub(crate) fn takes_look(&self) -> bool {
        self.is_out_of_time.swap(false, Ordering::Relaxed)
    }

    /// A turn begins that may move so many bytes; tells where it begins.
    pub(crate) fn begin_turn(&self, most: usize) -> u64 {
        let moved = self.moved.load(Ordering::Relaxed);
        self.turn_until
            .store(moved + most as u64, Ordering::Relaxed);
        moved
    }

    /// Bytes that a turn has moved so far.
    pub(crate) fn moved_since(&self, begun: u64) -> usize {
        let moved = self.moved.load(Ordering::Relaxed) - begun;
        usize::try_from(moved).unwrap_or(usize::MAX)
    }

    /// Ready while this turn may move more; then the task is woken for the next one.
    pub(crate) fn poll_allowance(&self, cx: &Context<'_>) -> Poll<()> {
        if self.moved.load(Ordering::Relaxed) < self.turn_until.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The same for a request, of which many may have come at once: it is charged as much as [`REQUEST`] bytes.
    pub(crate) fn poll_allowance_of_request(&self, cx: &Context<'_>) -> Poll<()> {
        std::task::ready!(self.poll_allowance(cx));
        let until = self.turn_until.load(Ordering::Relaxed);
        self.turn_until
            .store(until.saturating_sub(REQUEST), Ordering::Relaxed);
        Poll::Ready(())
    }

    fn count_moved(&self, bytes: usize) {
        let before = self.moved.load(Ordering::Relaxed);
        self.moved.store(before + bytes as u64, Ordering::Relaxed);
    }

    /// Notes that everything written has left.
    pub(crate) fn flushed(&self) {
        if !self.flushed.swap(true, Ordering::Relaxed) {
            // However late it reads: the wait for its next request begins when it has this answer.
            self.restart_clock();
        }
        // hyper flushes whenever it is polled: woken for that, its task would run without a pause.
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            self.end_held_back.wake();
        }
    }

    /// Notes that content is next, behind what hyper is about to write.
    pub(crate) fn bulk_is_next(&self) {
        self.flushed.store(false, Ordering::Relaxed);
        self.is_bulk_next.store(true, Ordering::Relaxed);
    }

    /// Whether it is time for that content, as it is once.
    pub(crate) fn takes_bulk(&self) -> bool {
        self.is_bulk_next.load(Ordering::Relaxed)
            && self.is_flushed()
            && self.is_bulk_next.swap(false, Ordering::Relaxed)
    }

    /// Notes that hyper answers by itself, which is dropped.
    pub(crate) fn drop_answer(&self) {
        self.dropped_answer.store(true, Ordering::Relaxed);
    }

    /// Has `reader` woken when all answers have left.
    pub(crate) fn hold_end_back(&self, reader: &Waker) {
        self.end_held_back.register(reader);
    }

    /// Has whoever waits for content woken when there will be no more.
    pub(crate) fn await_end(&self, reader: &Waker) {
        self.content_reader.register(reader);
    }

    /// Whether an answer has not left yet.
    ///
    /// RFC 9112 §9.6: a client that closes its side then still wants it. hyper takes the end of its
    /// data for the end of the client, so that is held back; content that it cuts short is noticed
    /// by whoever reads the content.
    pub(crate) fn owes_answer(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0 || !self.is_flushed()
    }

    /// Nothing is being answered, and all answers have left.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && self.flushed.load(Ordering::Relaxed)
    }
}

/// Keeps a connection busy until the response to one request is whole.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Progress>);

impl InFlight {
    /// The response begins.
    pub(crate) fn answering(&self) {
        self.0.answering.store(true, Ordering::Relaxed);
    }

    /// As `Progress::poll_allowance`.
    pub(crate) fn poll_allowance(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll_allowance(cx)
    }

    /// Why content has not moved for too long, if so.
    pub(crate) fn stalled(&self) -> Option<Reason> {
        self.0.stalled()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Its last bytes are in hyper's buffer still; the next flush says when they have left.
        self.0.flushed.store(false, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
