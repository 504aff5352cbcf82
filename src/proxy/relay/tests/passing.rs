//! Bulk through a pipe that nothing may wait in.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn what_a_reader_has_not_taken_waits_in_no_pipe_in_passing() {
    let (share, _taken) = alone_on(Way::InPassing);
    let others = share.same();
    let (mut client, mut upstream) = running(share, Arc::<Counts>::default()).await;
    let all = pattern(MUCH);
    let sending = async {
        upstream.write_all(&all).await.unwrap();
        upstream.shutdown().await.unwrap();
    };
    tokio::pin!(sending);
    // Nobody reads: this fills every buffer on the way, and stops.
    let stuck = tokio::time::timeout(Duration::from_millis(200), &mut sending).await;
    assert!(stuck.is_err());
    let passing = others.pipes.borrow(others.client).unwrap();
    assert!(passing.is_in_passing());
    drop(passing);
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(client.read_to_end(&mut received), sending);
    read.unwrap();
    assert!(received == all);
}
