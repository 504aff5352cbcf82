use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        })
        .collect()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(HeaderName::as_str).collect()
}

#[test]
fn nominated_and_connection_specific_fields_are_removed_rfc9110_7_6_1() {
    let mut headers = map(&[
        ("connection", "X-Trace, close"),
        ("connection", "x-other"),
        ("x-trace", "1"),
        ("x-other", "2"),
        ("x-stays", "3"),
        ("proxy-connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic eA=="),
    ]);
    let hop = take_hop_by_hop(&mut headers);
    assert_eq!(names(&headers), ["x-stays"]);
    assert_eq!(
        hop,
        Hop {
            upgrade: None,
            beyond_websocket: false,
            takes_trailers: false,
            chunked: true,
            closes: true,
        }
    );
}

#[test]
fn upgrade_counts_only_when_connection_nominates_it_rfc9110_7_8() {
    let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
    let hop = take_hop_by_hop(&mut headers);
    assert_eq!(hop.upgrade, Some(HeaderValue::from_static("websocket")));
    assert!(headers.is_empty());
    put_hop_by_hop(&mut headers, hop);
    assert_eq!(
        headers,
        map(&[("upgrade", "websocket"), ("connection", "upgrade")])
    );
}

#[test]
fn te_trailers_is_said_again_for_the_next_hop_rfc9110_10_1_4() {
    let mut headers = map(&[("te", "gzip;q=0.5, trailers"), ("connection", "TE")]);
    let hop = take_hop_by_hop(&mut headers);
    assert!(hop.takes_trailers);
    put_hop_by_hop(&mut headers, hop);
    assert_eq!(headers, map(&[("te", "trailers"), ("connection", "te")]));
}

#[test]
fn content_length_never_travels_beside_chunked_rfc9112_6_2() {
    let mut headers = map(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
    let hop = take_hop_by_hop(&mut headers);
    put_hop_by_hop(&mut headers, hop);
    assert_eq!(headers, map(&[("transfer-encoding", "chunked")]));
}

#[test]
fn via_names_the_received_version_and_the_pseudonym_rfc9110_7_6_3() {
    let via = Via::new("outgate").unwrap();
    let mut headers = map(&[("via", "1.0 first")]);
    append_via(&mut headers, Version::HTTP_11, &via);
    append_via(&mut headers, Version::HTTP_10, &via);
    let seen: Vec<_> = headers.get_all(VIA).iter().collect();
    assert_eq!(seen, ["1.0 first", "1.1 outgate", "1.0 outgate"]);
}

#[test]
fn host_must_stand_once_rfc9112_3_2() {
    let one = map(&[("host", "a.example:80")]);
    let two = map(&[("host", "a.example"), ("host", "b.example")]);
    let none = map(&[]);
    let bad = map(&[("host", "a.example/path")]);
    assert!(host_is_sound(&one, Version::HTTP_11));
    assert!(!host_is_sound(&two, Version::HTTP_11));
    assert!(!host_is_sound(&two, Version::HTTP_10));
    assert!(!host_is_sound(&none, Version::HTTP_11));
    assert!(host_is_sound(&none, Version::HTTP_10));
    assert!(!host_is_sound(&bad, Version::HTTP_11));
}

#[test]
fn chunked_alone_and_once_is_plain_framing_rfc9112_6_1() {
    assert!(framing_is_plain(&map(&[])));
    assert!(framing_is_plain(&map(&[("transfer-encoding", "Chunked")])));
    assert!(!framing_is_plain(&map(&[(
        "transfer-encoding",
        "gzip, chunked"
    )])));
    let twice = [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "chunked"),
    ];
    assert!(!framing_is_plain(&map(&twice)));
}

#[test]
fn a_basic_user_is_read_up_to_the_colon_rfc7617_2() {
    let user = |value| basic_user(&map(&[("proxy-authorization", value)]));
    assert_eq!(user("Basic YmF0Y2g6c2VjcmV0").as_deref(), Some("batch"));
    assert_eq!(user("basic YmF0Y2g6").as_deref(), Some("batch"));
    assert_eq!(user("Bearer YmF0Y2g6"), None);
    assert_eq!(user("Basic ???"), None);
    assert_eq!(user("Basic"), None);
    assert_eq!(user("Basic OnNlY3JldA=="), None);
}

#[test]
fn max_forwards_counts_down_and_stops_at_zero_rfc9110_7_6_2() {
    let mut headers = map(&[("max-forwards", "2")]);
    assert_eq!(count_forwards(&mut headers), Forwards::On);
    assert_eq!(headers, map(&[("max-forwards", "1")]));
    assert_eq!(
        count_forwards(&mut map(&[("max-forwards", "0")])),
        Forwards::Here
    );
    assert_eq!(
        count_forwards(&mut map(&[("max-forwards", "+1")])),
        Forwards::Invalid
    );
    assert_eq!(count_forwards(&mut map(&[])), Forwards::On);
}
