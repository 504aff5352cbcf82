use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tokio::net::TcpListener;

use crate::harness::dns::{Answer, DnsServer};
use crate::harness::origin::Origin;
use crate::harness::vacant::Unanswering;
use crate::harness::{Builder, TestProxy, connect_head, read_head, send};

// Name servers that answer badly, or not at all.
mod broken;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn builder(server: &DnsServer) -> Builder {
    let address = server.address;
    TestProxy::builder()
        .allow("*.dns.test:*")
        .with(move |config| {
            config.dns_servers = vec![address];
        })
}

#[tokio::test]
async fn an_answer_is_cached_for_its_ttl() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| Answer::Addresses(vec![LOOPBACK.into()], 60)).await;
    let proxy = builder(&server).start().await;
    for _ in 0..5 {
        proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
    }
    assert_eq!(server.asked(RecordType::A), 1);
}

/// More than are used of an answer; all are prohibited but the one at this place.
fn two_hundred(place: usize) -> Answer {
    let mut addresses: Vec<IpAddr> = (1..=200).map(|last| [10, 0, 0, last].into()).collect();
    addresses[place] = LOOPBACK.into();
    Answer::TooMany(addresses)
}

#[tokio::test]
async fn of_an_answer_no_more_than_32_addresses_are_used() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| two_hundred(32)).await;
    let proxy = builder(&server).start().await;
    let target = format!("a.dns.test:{}", origin.port());
    let answer = proxy.ask(&connect_head(&target)).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: address_prohibited\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_ttl_of_zero_is_asked_again_each_time() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| Answer::Addresses(vec![LOOPBACK.into()], 0)).await;
    let proxy = builder(&server).start().await;
    for _ in 0..3 {
        proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
    }
    // Not of AAAA: that there is none may be remembered.
    assert_eq!(server.asked(RecordType::A), 3);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_to_and_remembered() {
    let server = DnsServer::start(|_, _| Answer::Fails(ResponseCode::NXDomain)).await;
    let proxy = builder(&server).start().await;
    for _ in 0..3 {
        let answer = proxy.ask(&connect_head("gone.dns.test:443")).await;
        assert!(
            answer.starts_with("HTTP/1.1 502 egress failed: dns_not_found\r\n"),
            "{answer}"
        );
        assert!(answer.contains("error=dns_error"), "{answer}");
    }
    // Nobody leaves the one family where the other has no address.
    assert_eq!(server.asked(RecordType::A), 1);
    assert_eq!(server.asked(RecordType::AAAA), 1);
}

#[tokio::test]
async fn names_are_absolute_so_a_search_list_completes_none() {
    let server = DnsServer::start(|name, _| {
        assert_eq!(name, "short.dns.test");
        Answer::Fails(ResponseCode::NXDomain)
    })
    .await;
    let proxy = builder(&server).start().await;
    proxy.ask(&connect_head("short.dns.test:443")).await;
    assert_eq!(server.asked(RecordType::A), 1);
    assert_eq!(server.asked(RecordType::AAAA), 1);
}

#[tokio::test]
async fn of_a_mixed_answer_only_the_vetted_address_is_dialled() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| {
        let metadata: IpAddr = [169, 254, 169, 254].into();
        Answer::Addresses(vec![metadata, LOOPBACK.into()], 60)
    })
    .await;
    let proxy = builder(&server).start().await;
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
}

#[tokio::test]
async fn an_address_that_does_not_answer_gives_way_to_the_next_rfc8305_5() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| {
        // IPv6 comes first; nothing listens there.
        Answer::Addresses(vec!["::1".parse().unwrap(), LOOPBACK.into()], 60)
    })
    .await;
    let proxy = builder(&server).start().await;
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
}

#[tokio::test]
async fn a_kept_connection_is_left_when_dns_names_another_host() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    // The name moves to a loopback address where nothing listens.
    let server = DnsServer::start(|_, before| {
        let host = if before == 0 { 1 } else { 77 };
        Answer::Addresses(vec![[127, 0, 0, host].into()], 0)
    })
    .await;
    let proxy = builder(&server).start().await;
    let port = origin.port();
    let request = format!("GET http://a.dns.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(proxy.ask(&request).await.starts_with("HTTP/1.1 200 "));
    let answer = proxy.ask(&request).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_refused\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_answer_that_changes_between_look_ups_never_gets_an_unvetted_address_dialled() {
    let origin = Origin::answering("").await;
    // A dial to 10.0.0.1 would time out, not be refused.
    let server = DnsServer::start(|_, before| {
        let private = before % 2 == 1;
        let address = if private { [10, 0, 0, 1] } else { LOOPBACK };
        Answer::Addresses(vec![address.into()], 0)
    })
    .await;
    let proxy = builder(&server).start().await;
    let (mut reached, mut refused) = (0, 0);
    for _ in 0..40 {
        let mut client = proxy.connect().await;
        let head = connect_head(&format!("a.dns.test:{}", origin.port()));
        send(&mut client, head.as_bytes()).await;
        match read_head(&mut client).await.lines().next().unwrap() {
            "HTTP/1.1 200 OK" => reached += 1,
            "HTTP/1.1 403 egress denied: address_prohibited" => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(
        reached > 5 && refused > 5,
        "{reached} reached, {refused} refused"
    );
    let metrics = proxy.metrics().await;
    assert!(!metrics.contains("connect_duration_seconds_count{result=\"connection_timeout\"}"));
}

#[tokio::test]
async fn a_family_that_nobody_answers_for_does_not_keep_the_other_one_rfc8305_3() {
    for known in ["127.0.0.1", "::1"] {
        let known: IpAddr = known.parse().unwrap();
        let origin = TcpListener::bind((known, 0)).await.unwrap();
        let server = DnsServer::start(move |_, _| Answer::OneFamily(vec![known])).await;
        let proxy = builder(&server).start().await;
        let port = origin.local_addr().unwrap().port();
        proxy.tunnel(&format!("a.dns.test:{port}")).await;
    }
}

#[tokio::test]
async fn a_family_that_nobody_answers_for_is_not_waited_for_at_every_dial() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| Answer::OneFamily(vec![LOOPBACK.into()])).await;
    let proxy = builder(&server).start().await;
    for _ in 0..5 {
        proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
    }
    assert_eq!(server.asked(RecordType::AAAA), 1);
}

#[tokio::test]
async fn a_family_that_this_host_has_no_route_to_is_no_reason_to_leave_the_other_one() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| {
        // Without a zone there is no route to a link-local address (RFC 4007 §6).
        let unroutable: IpAddr = "fe80::1".parse().unwrap();
        // Longer than the one family waits for the other.
        Answer::Apart(
            vec![unroutable, LOOPBACK.into()],
            Duration::from_millis(400),
        )
    })
    .await;
    let proxy = builder(&server).start().await;
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let origin = Origin::answering("").await;
    // Longer than the one family waits for the other, and than a lost datagram is waited for.
    let server =
        DnsServer::start(|_, _| Answer::Late(vec![LOOPBACK.into()], Duration::from_millis(400)))
            .await;
    let proxy = builder(&server)
        .with(|config| config.dns_timeout = Duration::from_secs(20))
        .start()
        .await;
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
    proxy
        .shows("outgate_dns_lookup_duration_seconds_count{result=\"ok\"} 1")
        .await;
}

#[tokio::test]
async fn of_two_hundred_addresses_the_one_that_answers_is_found() {
    let origin = Origin::answering("").await;
    let server = DnsServer::start(|_, _| {
        // Nothing listens at the others, which refuse.
        let mut addresses: Vec<IpAddr> = (1..=200).map(|last| [127, 0, 1, last].into()).collect();
        addresses[15] = LOOPBACK.into();
        Answer::TooMany(addresses)
    })
    .await;
    let proxy = builder(&server).start().await;
    proxy.tunnel(&format!("a.dns.test:{}", origin.port())).await;
}

#[tokio::test]
async fn behind_many_addresses_that_do_not_answer_the_one_that_does_is_found() {
    let origin = Origin::answering("").await;
    let port = origin.port();
    // More than are dialled at once, and none of them says no.
    let silent = (1..=5).map(|last| Unanswering::at(([127, 0, 5, last], port).into()));
    let _silent = futures_util::future::join_all(silent).await;
    let server = DnsServer::start(|_, _| {
        let silent = (1..=5).map(|last| [127, 0, 5, last]);
        let addresses = silent.chain([LOOPBACK]).map(IpAddr::from);
        Answer::Addresses(addresses.collect(), 60)
    })
    .await;
    let proxy = builder(&server)
        .with(|config| config.connect_timeout = Duration::from_secs(4))
        .start()
        .await;
    proxy.tunnel(&format!("a.dns.test:{port}")).await;
}
