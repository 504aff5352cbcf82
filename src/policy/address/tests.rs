use super::*;

fn range(address: &str) -> Option<&'static str> {
    classify(address.parse().unwrap()).map(|block| block.range)
}

#[test]
fn each_row_says_in_text_the_network_it_matches() {
    for (network, block) in &V4 {
        assert_eq!(network.to_string(), block.range);
        assert_eq!(network.trunc(), *network);
    }
    for (network, block) in &V6 {
        assert_eq!(network.to_string(), block.range);
        assert_eq!(network.trunc(), *network);
    }
}

#[test]
fn the_first_and_last_address_of_each_block_is_in_it() {
    for (network, block) in &V4 {
        assert_eq!(v4_block(network.network()), Some(block));
        let last = v4_block(network.broadcast()).map(|block| block.range);
        let expected = if block.name == "Reserved" {
            "255.255.255.255/32"
        } else {
            block.range
        };
        assert_eq!(last, Some(expected));
    }
    for (network, block) in &V6 {
        assert_eq!(v6_block(network.broadcast()), Some(block));
    }
}

#[test]
fn the_neighbours_of_the_blocks_are_reachable() {
    for address in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "203.0.114.0",
        "223.255.255.255",
        "8.8.8.8",
        "2606:4700::1111",
        "2001:200::1",
        "2001:db7::1",
        "2001:db9::1",
        "3ffe::1",
        "2a00:1450::1",
    ] {
        assert_eq!(range(address), None, "{address}");
    }
}

#[test]
fn protocol_assignments_are_denied_but_for_their_global_parts() {
    for address in [
        "2001:1::1",
        "2001:1::2",
        "2001:1::3",
        "2001:3::1",
        "2001:4:112::1",
        "2001:20::1",
        "2001:2f:ffff::1",
        "2001:30::1",
    ] {
        assert_eq!(range(address), None, "{address}");
    }
    for address in [
        "2001:1::",
        "2001:1::4",
        "2001:2::1",
        "2001:4:111::1",
        "2001:10::1",
        "2001:40::1",
        "2001:1ff::1",
    ] {
        assert_eq!(range(address), Some("2001::/23"), "{address}");
    }
}

#[test]
fn an_ipv4_address_inside_ipv6_is_judged_as_itself() {
    for (address, expected) in [
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("::ffff:169.254.169.254", "169.254.0.0/16"),
        ("::127.0.0.1", "127.0.0.0/8"),
        ("::2", "0.0.0.0/8"),
        ("::ffff:0:127.0.0.1", "127.0.0.0/8"),
        ("64:ff9b::192.168.0.1", "192.168.0.0/16"),
        ("64:ff9b::", "0.0.0.0/8"),
        ("2002:7f00:1::1", "127.0.0.0/8"),
        ("2002:a01:203:ffff::", "10.0.0.0/8"),
        ("2001:0:808:808::f5fe:fdfc", "10.0.0.0/8"), // client 10.1.2.3, inverted
        ("2001:0:a01:203::f7f7:f7f7", "10.0.0.0/8"), // server 10.1.2.3
        ("2606:4700::5efe:10.1.2.3", "10.0.0.0/8"),
        ("2606:4700::200:5efe:10.1.2.3", "10.0.0.0/8"),
        ("2002:808:808::5efe:10.1.2.3", "10.0.0.0/8"), // two forms in one
        ("fe80::5efe:8.8.8.8", "fe80::/10"),
    ] {
        assert_eq!(range(address), Some(expected), "{address}");
    }
    for address in [
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808::f7f7:f7f7",
        "2606:4700::5efe:8.8.8.8",
    ] {
        assert_eq!(range(address), None, "{address}");
    }
    assert_eq!(range("64:ff9b:1::8.8.8.8"), Some("64:ff9b:1::/48"));
    assert_eq!(range("::"), Some("::/128"));
    assert_eq!(range("::1"), Some("::1/128"));
}
