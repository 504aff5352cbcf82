//! How much a direction moves before it leaves its thread to others.

use std::io::Read;
use std::net::Shutdown;

use super::*;

/// Bytes that a poll may move: what a pipe has kept of the turn before, and a turn of bulk with the read that ends it.
const MOST: usize = 2 * 1024 * 1024 + 64 * 1024;

/// Bytes of all polls: enough to see dozens of turns of bulk.
const ALL: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn a_direction_that_never_runs_dry_yields_after_a_turn() {
    for way in WAYS {
        let (share, _taken) = alone_on(way);
        let ((client, near), (upstream, far)) = (pair().await, pair().await);
        // Other threads, so that there is always more to take, and always room.
        let source = blocking(upstream);
        let mut sends = source.try_clone().unwrap();
        let sending = std::thread::spawn(move || while sends.write_all(&[7; MUCH / 16]).is_ok() {});
        let mut sink = blocking(client);
        let taking = std::thread::spawn(move || {
            let mut chunk = vec![0; MUCH / 16];
            while sink.read(&mut chunk).is_ok_and(|read| read > 0) {}
        });
        let mut down = OneWay::new(&far, &near, Bytes::new(), &share);
        let (mut all, mut most) = (0, 0);
        poll_fn(|cx| {
            let bytes = std::cell::Cell::new(0);
            let polled = down.poll(cx, |moved| bytes.set(bytes.get() + moved));
            assert!(polled.is_pending());
            all += bytes.get();
            most = most.max(bytes.get());
            if all < ALL {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        assert!(most <= MOST, "{way:?}: {most} bytes at once");
        drop(down);
        source.shutdown(Shutdown::Both).unwrap();
        drop((near, far));
        sending.join().unwrap();
        taking.join().unwrap();
    }
}

fn blocking(stream: TcpStream) -> std::net::TcpStream {
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}
