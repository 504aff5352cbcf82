use std::fs;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Running;
use crate::harness::origin::Origin;
use crate::harness::{read_head, send, within};
use crate::large_content::{HUGE, LARGE, chunked, origin};

/// Kernel pipes that the gateway has open, those of its output included.
fn pipes(gateway: &Running) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.process.id())).unwrap();
    // One may be closed while it is looked at.
    let opened = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    opened
        .filter(|what| what.to_str().is_some_and(|what| what.starts_with("pipe:")))
        .count()
}

/// Sends a request and reads content of at least this length.
async fn exchange(gateway: &Running, request: &str, length: usize) {
    let mut client = TcpStream::connect(gateway.proxy).await.unwrap();
    send(&mut client, request.as_bytes()).await;
    let head = read_head(&mut client).await;
    assert!(head.contains(" 200 OK\r\n"), "{head}");
    let mut content = vec![0; length];
    within(client.read_exact(&mut content)).await.unwrap();
}

#[test]
fn large_content_of_known_length_goes_through_a_kernel_pipe_and_no_other() {
    let runtime = Runtime::new().unwrap();
    let (origin, _) = runtime.block_on(origin(0));
    let in_chunks = runtime.block_on(Origin::answering(chunked()));
    let [origin, in_chunks] = [&origin, &in_chunks].map(|origin| origin.address.to_string());
    let allowed = format!("{origin} {in_chunks}");
    let gateway = Running::start(&[("OUTGATE_ALLOW", &*allowed), ("OUTGATE_DRAIN_DELAY", "0s")]);
    let request = |target: &str, length: usize, version: &str, fields: &str| {
        format!("GET http://{target}/{length} HTTP/{version}\r\nHost: x\r\n{fields}\r\n")
    };
    let at_first = pipes(&gateway);
    let upload = "Content-Length: 1\r\n";
    let copied = [
        (request(&origin, LARGE - 1, "1.1", ""), LARGE - 1),
        (request(&in_chunks, HUGE, "1.1", ""), HUGE),
        (request(&origin, HUGE, "1.0", ""), HUGE),
        (request(&origin, HUGE, "1.1", "Connection: close\r\n"), HUGE),
        (request(&origin, HUGE, "1.1", upload) + "u", HUGE),
    ];
    for (request, length) in copied {
        runtime.block_on(exchange(&gateway, &request, length));
        assert_eq!(pipes(&gateway), at_first, "{request}");
    }
    let plain = request(&origin, HUGE, "1.1", "");
    runtime.block_on(exchange(&gateway, &plain, HUGE));
    // The pipe is kept for the next one.
    assert!(pipes(&gateway) > at_first);
}
