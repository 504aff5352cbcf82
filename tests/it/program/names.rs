use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use hickory_resolver::proto::rr::RecordType;

use super::{PATIENCE, Running, get, metric};
use crate::harness::dns::{Answer, DnsServer};
use crate::harness::vacant::{Unanswering, Vacant};

const MEMORY: &str = "process_resident_memory_bytes ";
const DESCRIPTORS: &str = "process_open_fds ";

/// A gateway whose names this server looks up.
fn start(server: &DnsServer, variables: &[(&str, &str)]) -> Running {
    let servers = server.address.to_string();
    let mut all = vec![
        ("OUTGATE_DNS_SERVERS", &*servers),
        ("OUTGATE_ALLOW", "*.dns.test:*"),
    ];
    all.extend(variables);
    Running::start(&all)
}

fn ask(running: &Running, target: &str) -> TcpStream {
    let mut client = TcpStream::connect(running.proxy).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(client, "CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client
}

/// The first line of what it is told.
fn answer(client: TcpStream) -> String {
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_thousands_of_addresses_cost_no_more_memory_than_others() {
    const NAMES: u64 = 100;
    let server = DnsServer::start(|_, _| {
        // Of which none may be dialled.
        let addresses =
            (0..2_000_u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        Answer::TooMany(addresses.collect())
    })
    .await;
    let running = start(&server, &[]);
    let look_up = |name: u64| {
        let answer = answer(ask(&running, &format!("n{name}.dns.test:443")));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    };
    // What one answer costs while it is read is no matter of the cache.
    (0..10).for_each(look_up);
    let before = metric(&running, MEMORY);
    (10..10 + NAMES).for_each(look_up);
    let each = metric(&running, MEMORY).saturating_sub(before) / NAMES;
    assert!(each < 64 * 1024, "{each} bytes for each name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_addresses_do_not_answer_a_request_holds_few_descriptors() {
    const CLIENTS: u64 = 24;
    let silent = Unanswering::start().await;
    let server = DnsServer::start(|_, _| {
        Answer::Addresses((1..=40).map(|last| [127, 0, 3, last].into()).collect(), 60)
    })
    .await;
    let running = start(
        &server,
        &[
            ("OUTGATE_ALLOW_ADDRESSES", "127.0.0.0/8"),
            ("OUTGATE_CONNECT_TIMEOUT", "3s"),
        ],
    );
    // So that none of the clients looks the name up, which takes descriptors too.
    let refusing = Vacant::take();
    let known = (0..10).any(|_| {
        let asked = server.asked(RecordType::AAAA);
        let answer = answer(ask(&running, &format!("a.dns.test:{}", refusing.port())));
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        asked > 0 && server.asked(RecordType::AAAA) == asked
    });
    assert!(known, "an AAAA is asked for again and again");
    let target = format!("a.dns.test:{}", silent.port());
    let before = metric(&running, DESCRIPTORS);
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask(&running, &target)).collect();
    let all_failed = format!(
        "outgate_connect_duration_seconds_count{{result=\"connection_timeout\"}} {CLIENTS}\n"
    );
    let (mut most, started) = (0, Instant::now());
    while !get(running.admin, "/metrics").contains(&all_failed) {
        most = most.max(metric(&running, DESCRIPTORS) - before);
        assert!(started.elapsed() < PATIENCE);
    }
    // One towards the client and one towards the upstream, those that are shared, and the scrape has one.
    let further = outgate::limits::MOST_FURTHER_ATTEMPTS as u64;
    assert!(most <= CLIENTS * 2 + further + 8, "{most} descriptors");
    for client in clients {
        let answer = answer(client);
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    }
}
