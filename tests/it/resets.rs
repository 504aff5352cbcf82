use std::io;
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use outgate::drain::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::dns::{Answer, DnsServer};
use crate::harness::origin::Origin;
use crate::harness::vacant::Unanswering;
use crate::harness::{PATIENCE, TestProxy, any_port, connect_head, send, within};

/// Gone without a word.
fn reset(client: TcpStream) {
    client.set_zero_linger().unwrap();
    drop(client);
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_resets_while_its_upstream_is_dialled_has_the_dial_given_up() {
    let upstream = Unanswering::start().await;
    let port = upstream.port();
    let proxy = TestProxy::builder()
        .allow("*.upstream.test:*")
        .host("127.0.0.1 one.upstream.test two.upstream.test")
        .host("127.0.0.2 two.upstream.test")
        // No dial ends by itself.
        .with(|config| config.connect_timeout = PATIENCE * 4)
        .start()
        .await;
    let mut requests = [("connect", 0), ("forward", 0)];
    for (host, attempts) in [("one.upstream.test", 1), ("two.upstream.test", 2)] {
        let target = format!("{host}:{port}");
        for (kind, request) in [
            (0, connect_head(&target)),
            (
                1,
                format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            ),
            (
                1,
                format!(
                    "PUT http://{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\npart"
                ),
            ),
        ] {
            let mut client = proxy.connect().await;
            send(&mut client, request.as_bytes()).await;
            until(|| upstream.attempts() == attempts).await;
            reset(client);
            until(|| upstream.attempts() == 0).await;
            proxy
                .shows("outgate_connections_active{listener=\"proxy\"} 0")
                .await;
            let (kind, count) = &mut requests[kind];
            *count += 1;
            proxy
                .shows(&format!("outgate_requests_total{{kind=\"{kind}\",reason=\"client_closed\",result=\"failed\",rule=\"*.upstream.test:*\"}} {count}"))
                .await;
        }
    }
}

/// How far a client is when it resets.
enum Until {
    Accepted,
    /// A name server has been asked so often, now for its target.
    Asked(usize),
    /// The origin has something of it with this in it.
    Received(&'static str),
    /// It has what its answer ends with for now.
    Answered(&'static str),
    /// It has closed its side, and the origin has seen that.
    Finished,
}

/// In the order in which it may be in them: what a client sends, and until when it stays.
fn states(port: u16) -> Vec<(String, Until)> {
    let request = |method: &str, path: &str, fields: &str| {
        format!("{method} http://origin.test:{port}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
    };
    let expecting = "Content-Length: 9\r\nExpect: 100-continue\r\n";
    let switching = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let tunnel = connect_head(&format!("origin.test:{port}"));
    vec![
        (String::new(), Until::Accepted),
        ("GET http://ori".to_owned(), Until::Accepted),
        (connect_head("evil.test:443"), Until::Answered("}")),
        (connect_head("a.silent.test:443"), Until::Asked(1)),
        (
            "GET http://b.silent.test/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            Until::Asked(2),
        ),
        (
            request("GET", "/unanswered", ""),
            Until::Received("/unanswered"),
        ),
        (
            request("PUT", "/half", "Content-Length: 9\r\n") + "half",
            Until::Received("half"),
        ),
        (
            request("PUT", "/expecting", expecting),
            Until::Received("/expecting"),
        ),
        (request("GET", "/answered", ""), Until::Answered("part")),
        (request("GET", "/whole", ""), Until::Answered("whole")),
        (
            request("GET", "/switched", switching),
            Until::Answered("\r\n\r\n"),
        ),
        (tunnel.clone(), Until::Answered("\r\n\r\n")),
        (tunnel + "all", Until::Finished),
    ]
}

/// Tells what it receives, answers some of that, and closes nothing by itself.
async fn enduring() -> Origin {
    Origin::scripted(|mut stream, seen| async move {
        let mut bytes = vec![0; 4096];
        let mut last = String::new();
        while let Ok(length @ 1..) = stream.read(&mut bytes).await {
            last = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let answer = match last.split(' ').nth(1) {
                Some("/answered") => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
                Some("/whole") => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
                Some("/switched") => {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                }
                _ => "",
            };
            send(&mut stream, answer.as_bytes()).await;
            let _ = seen.send(last.clone());
        }
        let _ = seen.send(format!("the end behind {last}"));
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

impl Until {
    async fn reached(&self, client: &mut TcpStream, origin: &mut Origin, names: &DnsServer) {
        match self {
            Self::Accepted => {}
            Self::Asked(times) => until(|| names.asked(RecordType::A) == *times).await,
            Self::Received(part) => while !origin.received().await.contains(part) {},
            Self::Answered(end) => {
                let mut answer = Vec::new();
                while !answer.ends_with(end.as_bytes()) {
                    answer.push(within(client.read_u8()).await.unwrap());
                }
            }
            Self::Finished => {
                client.shutdown().await.unwrap();
                while origin.received().await != "the end behind all" {}
            }
        }
    }
}

#[tokio::test]
async fn a_reset_in_any_state_leaves_nothing_behind() {
    let mut origin = enduring().await;
    let names = DnsServer::start(|_, _| Answer::Silence).await;
    let name_server = names.address;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .allow("*.silent.test:*")
        // Nothing ends by itself.
        .with(move |config| {
            config.dns_servers = vec![name_server];
            config.header_timeout = PATIENCE * 4;
            config.dns_timeout = PATIENCE * 4;
            config.connect_timeout = PATIENCE * 4;
            config.response_timeout = PATIENCE * 4;
            config.idle_timeout = PATIENCE * 4;
            config.keepalive_timeout = PATIENCE * 4;
        })
        .start()
        .await;
    let states = states(origin.port());
    let mut clients = 0;
    for (sent, until) in &states {
        let mut client = proxy.connect().await;
        send(&mut client, sent.as_bytes()).await;
        until.reached(&mut client, &mut origin, &names).await;
        reset(client);
        clients += 1;
        nothing_is_left(&proxy, clients).await;
    }
    for line in [
        "outgate_requests_total{kind=\"connect\",reason=\"client_closed\",result=\"failed\",rule=\"*.silent.test:*\"} 1",
        "outgate_requests_total{kind=\"forward\",reason=\"client_closed\",result=\"failed\",rule=\"*.silent.test:*\"} 1",
        "outgate_requests_total{kind=\"forward\",reason=\"client_closed\",result=\"failed\",rule=\"origin.test:*\"} 2",
        "outgate_tunnels_closed_total{end=\"client_reset\"} 3",
    ] {
        proxy.shows(line).await;
    }
    // And before any of that is looked at, or amid it.
    for (sent, _) in &states {
        let mut client = proxy.connect().await;
        send(&mut client, sent.as_bytes()).await;
        reset(client);
        clients += 1;
    }
    nothing_is_left(&proxy, clients).await;
}

/// Waits until so many clients have come and all of them are gone.
async fn nothing_is_left(proxy: &TestProxy, clients: usize) {
    for line in [
        &*format!("outgate_connections_total{{listener=\"proxy\"}} {clients}"),
        "outgate_connections_active{listener=\"proxy\"} 0",
        "outgate_tunnels_active 0",
        "outgate_pool_connections{state=\"busy\"} 0",
    ] {
        proxy.shows(line).await;
    }
}

/// Who sends bulk through a tunnel, how, and who resets it.
#[derive(Clone, Copy, Debug)]
struct Case {
    by_client: bool,
    /// At full speed, so that it goes through pipes, or in pieces that are copied.
    piped: bool,
    /// Whether the other side reads, or everything on the way is full.
    read: bool,
    client_resets: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        (0..16).map(|bits| Self {
            by_client: bits & 1 > 0,
            piped: bits & 2 > 0,
            read: bits & 4 > 0,
            client_resets: bits & 8 > 0,
        })
    }

    /// Gives the side that is left.
    async fn play(self, proxy: &TestProxy) -> TcpStream {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let target = format!("origin.test:{}", listener.local_addr().unwrap().port());
        let (mut client, accepted) = tokio::join!(proxy.tunnel(&target), listener.accept());
        let mut upstream = accepted.unwrap().0;
        if self.by_client {
            self.move_bulk(&mut client, &mut upstream).await;
        } else {
            self.move_bulk(&mut upstream, &mut client).await;
        }
        let (gone, left) = if self.client_resets {
            (client, upstream)
        } else {
            (upstream, client)
        };
        reset(gone);
        left
    }

    async fn move_bulk(self, sender: &mut TcpStream, receiver: &mut TcpStream) {
        let (length, pause) = if self.piped {
            (256 * 1024, None)
        } else {
            (16 * 1024, Some(Duration::from_millis(1)))
        };
        let chunk = vec![7; length];
        let sending = async {
            // When one is not taken for so long, nothing goes on.
            let patience = if self.read {
                PATIENCE
            } else {
                Duration::from_millis(500)
            };
            while let Ok(sent) = tokio::time::timeout(patience, sender.write_all(&chunk)).await {
                sent.unwrap();
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
            }
        };
        if self.read {
            let mut received = vec![0; 64 * length];
            tokio::select! {
                () = sending => panic!("{self:?}: does not go on"),
                read = receiver.read_exact(&mut received) => assert_eq!(read.unwrap(), 64 * length),
            }
        } else {
            within(sending).await;
        }
    }
}

#[tokio::test]
async fn a_reset_amid_bulk_ends_its_tunnel_and_is_passed_on_whoever_reads() {
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let playing = Case::all().map(|case| case.play(&proxy));
    let left = futures_util::future::join_all(playing).await;
    for end in ["client_reset", "upstream_reset"] {
        proxy
            .shows(&format!("outgate_tunnels_closed_total{{end=\"{end}\"}} 8"))
            .await;
    }
    proxy.shows("outgate_tunnels_active 0").await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    for (case, mut left) in Case::all().zip(left) {
        let read = within(left.read_to_end(&mut Vec::new())).await;
        let error = read.expect_err(&format!("{case:?}"));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{case:?}");
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_clients_that_have_reset() {
    let unanswering = Unanswering::start().await;
    let silent = Origin::scripted(|stream, _| async move {
        // Reads nothing and says nothing, for as long as the test lasts.
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| {
            config.connect_timeout = PATIENCE * 4;
            config.drain_timeout = PATIENCE * 4;
        })
        .start()
        .await;
    let mut clients = Vec::new();
    for port in [unanswering.port(), silent.port()] {
        let target = format!("origin.test:{port}");
        for request in [
            connect_head(&target),
            format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            format!("PUT http://{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\npart"),
        ] {
            let mut client = proxy.connect().await;
            send(&mut client, request.as_bytes()).await;
            clients.push(client);
        }
    }
    let mut stalled = proxy
        .tunnel(&format!("origin.test:{}", silent.port()))
        .await;
    let chunk = vec![7; 256 * 1024];
    let patience = Duration::from_millis(500);
    while let Ok(sent) = tokio::time::timeout(patience, stalled.write_all(&chunk)).await {
        sent.unwrap();
    }
    clients.push(stalled);
    until(|| unanswering.attempts() == 3).await;

    proxy.stop(Stop::Gently).await;
    within(async { while TcpStream::connect(proxy.address).await.is_ok() {} }).await;
    clients.into_iter().for_each(reset);
    let drained = proxy.ended().await;
    assert_eq!((drained.tunnels_closed, drained.connections_cut), (0, 0));
    assert_eq!(unanswering.attempts(), 0);
}
