//! Content of a request on its way: streamed, counted, never collected.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::progress::Progress;
use crate::access::Traffic;
use crate::metrics::Direction;

/// How long content is held back for an upstream that answers `Expect: 100-continue` neither way.
///
/// RFC 9110 §10.1.1 forbids waiting for ever; a second is what curl waits for as a client.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// The content of a request to the upstream.
///
/// hyper tells a client that expects `100 (Continue)` to go on when its content is first asked
/// for, so it is not asked for before the upstream wants it (RFC 9110 §10.1.1).
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    traffic: Arc<Traffic>,
    /// The connection the content comes from; none for a request without any.
    upload: Option<Arc<Progress>>,
    gate: Option<Gate>,
}

impl RequestBody {
    /// No content: a request that can be sent again.
    pub(crate) fn empty(traffic: Arc<Traffic>) -> Self {
        Self {
            incoming: None,
            traffic,
            upload: None,
            gate: None,
        }
    }

    /// Content that streams from the client.
    pub(crate) fn streaming(
        incoming: Incoming,
        traffic: Arc<Traffic>,
        progress: &Arc<Progress>,
    ) -> Self {
        progress.upload_begun();
        let upload = Some(Arc::clone(progress));
        Self {
            incoming: Some(incoming),
            traffic,
            upload,
            gate: None,
        }
    }

    /// Whether there is nothing to send, so that the request can be made again.
    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// Holds the content back until the returned handle opens, or patience runs out.
    pub(crate) fn hold_back(&mut self) -> Arc<Continue> {
        let open = Arc::new(Continue::default());
        self.gate = Some(Gate {
            open: Arc::clone(&open),
            patience: Box::pin(tokio::time::sleep(CONTINUE_PATIENCE)),
        });
        open
    }

    fn end_upload(&mut self) {
        if let Some(progress) = self.upload.take() {
            progress.upload_ended();
        }
    }

    /// The counts this content adds to.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.end_upload();
    }
}

/// Why the content of a request did not become whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Its framing is broken.
    #[error(transparent)]
    Framing(#[from] hyper::Error),
    /// The client closed its side before the end.
    #[error("the client closed its side before the end of its content")]
    CutShort,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            ready!(gate.poll_open(cx));
            this.gate = None;
        }
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let polled = poll_content(incoming, this.upload.as_deref(), cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.traffic.count(Direction::ClientToUpstream, data.len());
        }
        if matches!(polled, Poll::Ready(None)) || incoming.is_end_stream() {
            this.end_upload();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// Asks for more content; there is none from a client that has closed its side.
fn poll_content<C>(
    content: &mut C,
    upload: Option<&Progress>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, UploadError>>>
where
    C: Body<Data = Bytes> + Unpin,
    UploadError: From<C::Error>,
{
    let mut polled = Pin::new(&mut *content).poll_frame(cx);
    let Some(progress) = upload else {
        return polled.map_err(UploadError::from);
    };
    progress.wants_content(polled.is_pending());
    if polled.is_pending() {
        progress.await_end(cx.waker());
        if progress.client_finished() {
            // All that was read has been handed on by now, if not when it was asked for first.
            polled = Pin::new(content).poll_frame(cx);
            if polled.is_pending() {
                return Poll::Ready(Some(Err(UploadError::CutShort)));
            }
            progress.wants_content(false);
        }
    }
    polled.map_err(UploadError::from)
}

/// Opens when the upstream says `100 (Continue)`.
#[derive(Debug, Default)]
pub(crate) struct Continue {
    said: AtomicBool,
    waker: AtomicWaker,
}

impl Continue {
    pub(crate) fn say(&self) {
        self.said.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[derive(Debug)]
struct Gate {
    open: Arc<Continue>,
    patience: Pin<Box<tokio::time::Sleep>>,
}

impl Gate {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.waker.register(cx.waker());
        if self.open.said.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Content whose last piece comes, with the client's end behind it, right after it was asked for.
    struct Late<'a>(&'a Progress, Option<Bytes>);

    impl Body for Late<'_> {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            if self.0.client_finished() {
                return self.1.take().map_or(Poll::Pending, |last| {
                    Poll::Ready(Some(Ok(Frame::data(last))))
                });
            }
            self.0.read(b"");
            Poll::Pending
        }
    }

    #[test]
    fn what_came_before_the_client_closed_its_side_is_not_cut_off() {
        let progress = Progress::new();
        let mut content = Late(&progress, Some(Bytes::from_static(b"last")));
        let cx = &mut Context::from_waker(Waker::noop());
        let last = poll_content(&mut content, Some(&progress), cx);
        assert!(matches!(last, Poll::Ready(Some(Ok(frame))) if frame.is_data()));
        assert!(!progress.awaits_content());
        let none = poll_content(&mut content, Some(&progress), cx);
        let cut = Poll::Ready(Some(Err::<(), _>(UploadError::CutShort.to_string())));
        let none = none.map(|none| none.map(|frame| frame.map(drop).map_err(|e| e.to_string())));
        assert_eq!(none, cut);
    }
}
