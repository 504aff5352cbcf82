//! Content of a known length, passed on to one side.

use std::io::ErrorKind;

use futures_util::FutureExt;

use super::*;

#[tokio::test]
async fn so_many_bytes_are_passed_on_and_both_sockets_go_on() {
    for way in WAYS {
        let (share, _taken) = alone_on(way);
        let ((mut client, near), (mut upstream, far)) = (pair().await, pair().await);
        for left in [0, 1, MUCH as u64 - 6] {
            let content = pattern(6 + usize::try_from(left).unwrap());
            let taken = AtomicUsize::new(0);
            let told = |bytes: Option<usize>| {
                taken.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
            };
            let early = Bytes::copy_from_slice(&content[..6]);
            let length = Content {
                upstream: &far,
                early,
                left,
            };
            let passes = pass(length, &near, &share, told, || false);
            let sends = async {
                upstream.write_all(&content[6..]).await.unwrap();
                upstream.write_all(b"behind").await.unwrap();
            };
            let mut seen = vec![0; content.len()];
            let (passed, (), read) = tokio::join!(passes, sends, client.read_exact(&mut seen));
            assert_eq!(passed, Ok(()));
            read.unwrap();
            assert!(seen == content);
            assert_eq!(taken.into_inner(), content.len());
            let mut behind = [0; 6];
            far.readable().await.unwrap();
            assert_eq!(far.try_read(&mut behind).unwrap(), 6);
            assert_eq!(&behind, b"behind");
            assert_eq!(
                client.try_read(&mut behind).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
        }
        drop(upstream);
        let passed = pass(one_byte(&far), &near, &share, |_| {}, || false).await;
        assert_eq!(passed, Err(End::UpstreamReset));
    }
}

fn one_byte(upstream: &TcpStream) -> Content<'_> {
    Content {
        upstream,
        early: Bytes::new(),
        left: 1,
    }
}

#[tokio::test]
async fn content_that_is_due_waits_for_no_turn() {
    let share = alone(1);
    let mut other = Place::of_bulk(&share.turns, share.client);
    poll_fn(|cx| other.poll_turn(cx)).await;
    let ((_client, near), (mut upstream, far)) = (pair().await, pair().await);
    upstream.write_all(b"c").await.unwrap();
    far.readable().await.unwrap();
    let waits = pass(one_byte(&far), &near, &share, |_| {}, || false);
    assert!(waits.now_or_never().is_none());
    let is_due = pass(one_byte(&far), &near, &share, |_| {}, || true);
    assert_eq!(is_due.now_or_never(), Some(Ok(())));
}
