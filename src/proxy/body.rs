//! Content of a response on its way to the client: streamed, never collected.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::pool::Lease;
use super::progress::InFlight;
use crate::access::{AccessRecord, Detail};
use crate::reason::Reason;

/// The content of a response to the client.
///
/// It carries the account of its request, which is settled when the content has been handed on
/// or given up.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    /// None where it goes with the content elsewhere.
    account: Option<Account>,
}

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Upstream(Lease),
    Broken(Option<BrokenOff>),
    Elsewhere(u64),
}

/// The account of a request that is being answered.
#[derive(Debug)]
pub(crate) struct Account {
    record: AccessRecord,
    in_flight: InFlight,
}

impl Account {
    pub(crate) fn new(record: AccessRecord, in_flight: InFlight) -> Self {
        in_flight.answering();
        Self { record, in_flight }
    }

    /// Notes why the content broke off.
    pub(crate) fn broke_off(&mut self, reason: Reason, detail: Detail) {
        self.record.failed(reason, detail);
    }

    /// Notes that content from an upstream is given up because it stands still, if that is why.
    pub(crate) fn note_stall(&mut self) {
        if let Some(reason) = self.in_flight.stalled() {
            self.broke_off(reason, "content has not moved for too long".into());
        }
    }
}

/// The response cannot be gone on with; why stands in its account.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off")]
pub(crate) struct BrokenOff;

impl ResponseBody {
    /// Content of the gateway's own.
    pub(crate) fn own(bytes: Bytes, account: Account) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self {
            content: Content::Own(bytes),
            account: Some(account),
        }
    }

    /// Content that streams from the upstream.
    pub(crate) fn upstream(lease: Lease, account: Account) -> Self {
        Self {
            content: Content::Upstream(lease),
            account: Some(account),
        }
    }

    /// So much that hyper waits for in vain: once it has written the head, the content goes past it.
    pub(crate) fn elsewhere(length: u64) -> Self {
        Self {
            content: Content::Elsewhere(length),
            account: None,
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Content::Upstream(_), Some(account)) = (&self.content, &mut self.account) {
            account.note_stall();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        match &mut this.content {
            Content::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Upstream(lease) => {
                match ready!(poll_in_turn(lease, this.account.as_ref(), cx)) {
                    Some(Err(error)) => {
                        if let Some(account) = &mut this.account {
                            let reason = super::exchange::classify(&error);
                            account.broke_off(reason, Detail::Response(error));
                        }
                        this.content = Content::Broken(Some(BrokenOff));
                        // hyper drops what it holds when the content fails, so it gets a turn to
                        // send that first.
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
                    None => Poll::Ready(None),
                }
            }
            Content::Broken(error) => Poll::Ready(error.take().map(Err)),
            Content::Elsewhere(_) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Upstream(lease) => lease.is_end_stream(),
            Content::Broken(_) | Content::Elsewhere(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Content::Upstream(lease) => lease.size_hint(),
            Content::Broken(_) => SizeHint::default(),
            Content::Elsewhere(length) => SizeHint::with_exact(*length),
        }
    }
}

/// What the upstream has sent, as long as the client's turn lasts: what was read is written within it.
fn poll_in_turn(
    lease: &mut Lease,
    account: Option<&Account>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    if let Some(account) = account {
        ready!(account.in_flight.poll_allowance(cx));
    }
    lease.poll_frame(cx)
}
