use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Running;
use crate::harness::origin::{Origin, read_request};
use crate::harness::{read_head, send, within};

/// Enough to be bulk, however it is cut into pieces.
const HUGE: usize = 32 * 1024 * 1024;

/// Kernel pipes that the gateway has open, those of its output included.
fn pipes(gateway: &Running) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.process.id())).unwrap();
    // One may be closed while it is looked at.
    let opened = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    opened
        .filter(|what| what.to_str().is_some_and(|what| what.starts_with("pipe:")))
        .count()
}

/// Answers `/chunked` in chunks and all else with so many bytes.
async fn origin() -> Origin {
    Origin::scripted(|mut stream, _| async move {
        while let Some(request) = read_request(&mut stream).await {
            let path = request.split(' ').nth(1).unwrap();
            let (framing, length) = match path[1..].parse() {
                Ok(length) => (format!("Content-Length: {length}"), length),
                Err(_) => ("Transfer-Encoding: chunked".to_owned(), HUGE),
            };
            let mut content = vec![b'c'; length];
            if path == "/chunked" {
                content.splice(0..0, format!("{HUGE:x}\r\n").into_bytes());
                content.extend(b"\r\n0\r\n\r\n");
            }
            send(
                &mut stream,
                format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes(),
            )
            .await;
            let _ = stream.write_all(&content).await;
        }
    })
    .await
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
    let origin = runtime.block_on(origin());
    let target = origin.address.to_string();
    let gateway = Running::start(&[("OUTGATE_ALLOW", &*target), ("OUTGATE_DRAIN_DELAY", "0s")]);
    let request = |path: &str, version: &str, fields: &str| {
        format!("GET http://{target}/{path} HTTP/{version}\r\nHost: x\r\n{fields}\r\n")
    };
    let small = HUGE / 128 - 1;
    let at_first = pipes(&gateway);
    let upload = "Content-Length: 1\r\n";
    let copied = [
        (request(&small.to_string(), "1.1", ""), small),
        (request("chunked", "1.1", ""), HUGE),
        (request(&HUGE.to_string(), "1.0", ""), HUGE),
        (
            request(&HUGE.to_string(), "1.1", "Connection: close\r\n"),
            HUGE,
        ),
        (request(&HUGE.to_string(), "1.1", upload) + "u", HUGE),
    ];
    for (request, length) in copied {
        runtime.block_on(exchange(&gateway, &request, length));
        assert_eq!(pipes(&gateway), at_first, "{request}");
    }
    let plain = request(&HUGE.to_string(), "1.1", "");
    runtime.block_on(exchange(&gateway, &plain, HUGE));
    // The pipe is kept for the next one.
    assert!(pipes(&gateway) > at_first);
}
