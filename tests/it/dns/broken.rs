use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;

use super::{LOOPBACK, builder, two_hundred};
use crate::harness::dns::{Answer, DnsServer};
use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head};

/// Questions that one name comes to at most, however it goes on: the resolver's own limit.
const MOST_ALIASES: usize = 8;

/// How one request is counted that failed for a reason.
fn failed(reason: &str) -> String {
    format!(
        "outgate_requests_total{{kind=\"connect\",reason=\"{reason}\",result=\"failed\",rule=\"*.dns.test:*\"}} 1"
    )
}

/// Asks for a name, which fails with this status.
async fn fails(proxy: &TestProxy, status: &str) {
    let answer = proxy.ask(&connect_head("a.dns.test:443")).await;
    is_failed(proxy, &answer, status).await;
}

/// An answer has this status, and its reason is counted.
async fn is_failed(proxy: &TestProxy, answer: &str, status: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
        "{answer}"
    );
    let (_, reason) = status.split_once(": ").unwrap();
    proxy.shows(&failed(reason)).await;
}

#[tokio::test]
async fn a_server_that_fails_is_told_from_a_name_that_does_not_exist() {
    let server = DnsServer::start(|_, _| Answer::Fails(ResponseCode::ServFail)).await;
    let proxy = builder(&server).start().await;
    fails(&proxy, "502 egress failed: dns_error").await;
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_comes_over_tcp() {
    let origin = Origin::answering("").await;
    // The one that answers is the last of those that are used; the others are prohibited.
    let server = DnsServer::start(|_, _| two_hundred(31)).await;
    let proxy = builder(&server).start().await;
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_is_an_error_where_tcp_is_refused() {
    let mut server = DnsServer::start(|_, _| Answer::Truncated).await;
    let _refusing = server.refuse_tcp().await;
    let proxy = builder(&server).start().await;
    fails(&proxy, "502 egress failed: dns_error").await;
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_times_out_where_tcp_is_silent() {
    let server = DnsServer::start(|_, _| Answer::Truncated).await;
    fails_in_time(&server, "504 egress failed: dns_timeout").await;
}

#[tokio::test]
async fn a_datagram_that_breaks_off_is_an_error_and_not_waited_behind() {
    let server = DnsServer::start(|_, _| Answer::Cut(20)).await;
    fails_in_time(&server, "502 egress failed: dns_error").await;
}

/// Asks a server of which no answer is whole: no later than is configured that is an error.
async fn fails_in_time(server: &DnsServer, status: &str) {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let proxy = builder(server)
        .with(|config| config.dns_timeout = TIMEOUT)
        .start()
        .await;
    let begun = Instant::now();
    let answer = proxy.ask(&connect_head("a.dns.test:443")).await;
    // As much again for a machine that is busy.
    assert!(begun.elapsed() < 2 * TIMEOUT, "{:?}", begun.elapsed());
    is_failed(&proxy, &answer, status).await;
}

#[tokio::test]
async fn aliases_that_go_round_in_circles_are_an_error() {
    let server = DnsServer::start(|name, _| {
        Answer::Alias(if name == "a.dns.test" {
            "b.dns.test."
        } else {
            "a.dns.test."
        })
    })
    .await;
    let proxy = builder(&server).start().await;
    fails(&proxy, "502 egress failed: dns_not_found").await;
    for family in [RecordType::A, RecordType::AAAA] {
        let asked = server.asked(family);
        assert!((2..=MOST_ALIASES).contains(&asked), "{asked} questions");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_a_timeout_and_asked_again_when_it_is_back() {
    let origin = Origin::answering("").await;
    let back = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&back);
    let server = DnsServer::start(move |_, _| {
        if seen.load(Ordering::SeqCst) {
            Answer::Addresses(vec![LOOPBACK.into()], 60)
        } else {
            Answer::Silence
        }
    })
    .await;
    let proxy = builder(&server)
        .with(|config| config.dns_timeout = Duration::from_millis(200))
        .start()
        .await;
    let answer = proxy.ask(&connect_head("a.dns.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 504 egress failed: dns_timeout\r\n"),
        "{answer}"
    );
    proxy
        .shows("outgate_dns_lookup_duration_seconds_count{result=\"dns_timeout\"} 1")
        .await;
    back.store(true, Ordering::SeqCst);
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
}

#[tokio::test]
async fn a_server_that_dies_is_an_error_until_it_is_back() {
    let origin = Origin::answering("").await;
    let answer = |_: &str, _| Answer::Addresses(vec![LOOPBACK.into()], 0);
    // Of its own, so that nobody else is there while it is dead.
    let server = DnsServer::start_at(([127, 0, 2, 1], 0).into(), answer).await;
    let address = server.address;
    let proxy = builder(&server)
        .with(|config| config.dns_timeout = Duration::from_secs(1))
        .start()
        .await;
    let target = format!("a.dns.test:{}", origin.port());
    proxy.tunnel(&target).await;
    server.die().await;
    let refused = proxy.ask(&connect_head("b.dns.test:443")).await;
    assert!(
        refused.starts_with("HTTP/1.1 502 egress failed: dns_error\r\n")
            || refused.starts_with("HTTP/1.1 504 egress failed: dns_timeout\r\n"),
        "{refused}"
    );
    let reason = if refused.contains("dns_error") {
        "dns_error"
    } else {
        "dns_timeout"
    };
    proxy.shows(&failed(reason)).await;
    let _server = DnsServer::start_at(address, answer).await;
    proxy.tunnel(&target).await;
    // That it was not to be had is not remembered.
    proxy.tunnel(&format!("b.dns.test:{}", origin.port())).await;
}
