use super::*;

#[test]
fn a_stall_is_the_fault_of_whoever_is_waited_for() {
    let stalled = |happens: fn(&Progress)| {
        let progress = Progress::new();
        happens(&progress);
        progress.stall();
        progress.stalled()
    };
    let by_client = Some(Reason::ContentTimeout);
    assert_eq!(stalled(|_| {}), Some(Reason::ResponseTimeout));
    assert_eq!(stalled(|progress| progress.wrote(None)), by_client);
    assert_eq!(stalled(|progress| progress.wants_content(true)), by_client);
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
    request.answering();
    let content = |moved, by_upstream| Waiting::Content { moved, by_upstream };
    assert_eq!(progress.waiting(), content(10, true));
    progress.wrote(Some(5));
    assert_eq!(progress.waiting(), content(15, true));
    progress.wrote(None);
    assert_eq!(progress.waiting(), content(15, false));
    drop(request);
    assert_eq!(progress.waiting(), content(15, false));
    progress.flushed();
    assert!(matches!(progress.waiting(), Waiting::Next(_)));
}

#[test]
fn the_wait_for_the_next_request_begins_when_the_last_answer_has_left() {
    const READING: Duration = Duration::from_secs(30);
    let progress = Arc::new(Progress {
        opened: Instant::now().checked_sub(READING).unwrap(),
        ..Progress::new()
    });
    drop(progress.request_begun(Version::HTTP_11));
    progress.since.store(0, Ordering::Relaxed);
    progress.wrote(Some(5));
    progress.flushed();
    let Waiting::Next(waited) = progress.waiting() else {
        panic!("{:?}", progress.waiting());
    };
    assert!(waited < READING);
    // What is flushed already does not begin it again.
    progress.since.store(0, Ordering::Relaxed);
    progress.flushed();
    assert!(matches!(progress.waiting(), Waiting::Next(waited) if waited >= READING));
}
