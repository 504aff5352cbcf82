//! How much a direction moves before it leaves its thread to others.

use std::cell::{Cell, RefCell};
use std::io::Read;

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::*;

/// Bytes of a turn of bulk.
const TURN: usize = 1024 * 1024;

/// Bytes that a read, or a pipe in passing, takes at most.
const READ: usize = 64 * 1024;

/// So many that every turn but the first is one of bulk.
const POLLS: usize = 50;

impl Way {
    /// What is kept of the turn before, a turn, and where its bytes are copied the read that ends it.
    fn most_at_once(self) -> usize {
        match self {
            Self::Copied => READ + TURN + READ,
            Self::InPassing => READ + TURN,
            Self::Piped => TURN + TURN,
        }
    }
}

#[tokio::test]
async fn a_direction_that_never_runs_dry_yields_after_a_turn() {
    for way in WAYS {
        let (share, _taken) = alone_on(way);
        let ((client, near), (upstream, far)) = (pair().await, pair().await);
        for receiving in [&client, &far] {
            // Twice that, so that more arrives than one read takes.
            set_socket_recv_buffer_size(receiving, 200 * 1024).unwrap();
        }
        let source = RefCell::new(upstream.into_std().unwrap());
        let sink = RefCell::new(client.into_std().unwrap());
        // There is always more to take, and always room.
        let go_on = || {
            let mut chunk = [7; READ];
            while sink.borrow_mut().read(&mut chunk).is_ok() {}
            while source.borrow_mut().write(&chunk).is_ok() {}
        };
        let mut down = OneWay::new(&far, &near, Bytes::new(), &share);
        let mut most = 0;
        for _ in 0..POLLS {
            let bytes = Cell::new(0);
            go_on();
            poll_fn(|cx| {
                let polled = down.poll(cx, |moved| {
                    bytes.set(bytes.get() + moved);
                    // Without a bound it would never end.
                    assert!(bytes.get() <= way.most_at_once(), "{way:?}: {bytes:?}");
                    go_on();
                });
                assert!(polled.is_pending());
                if bytes.get() == 0 {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
            most = most.max(bytes.get());
        }
        assert!(most >= TURN, "{way:?}: no more than {most} bytes at once");
    }
}
