//! Special-purpose address blocks, and IPv4 addresses carried inside IPv6 ones.
//!
//! The blocks are those of the IANA IPv4 and IPv6 Special-Purpose Address Registries that are not
//! globally reachable, with multicast and the deprecated blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// One special-purpose block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The block in CIDR notation.
    pub range: &'static str,
    /// Its name in the registry.
    pub name: &'static str,
    /// The document that reserves it.
    pub source: &'static str,
}

/// An IPv4 address inside an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// The form that carries it, with its document.
    pub form: &'static str,
}

/// The block that makes an address special, if any: its own, or that of an IPv4 address it carries.
#[must_use]
pub fn classify(address: IpAddr) -> Option<&'static Block> {
    block_of(address).or_else(|| carried(address).find_map(|inner| v4_block(inner.address)))
}

/// The block an address itself lies in, whatever it carries.
#[must_use]
pub fn block_of(address: IpAddr) -> Option<&'static Block> {
    match address {
        IpAddr::V4(address) => v4_block(address),
        IpAddr::V6(address) => v6_block(address),
    }
}

/// Every IPv4 address that an address carries: none for IPv4, at most three for IPv6.
pub fn carried(address: IpAddr) -> impl Iterator<Item = Carried> {
    let found = match address {
        IpAddr::V4(_) => [None; 3],
        IpAddr::V6(address) => carried_by_v6(address),
    };
    found.into_iter().flatten()
}

fn v4_block(address: Ipv4Addr) -> Option<&'static Block> {
    // Sixteen rows: one pass is cheaper than anything that would have to be built.
    V4.iter()
        .find(|(network, _)| network.contains(&address))
        .map(|(_, block)| block)
}

fn v6_block(address: Ipv6Addr) -> Option<&'static Block> {
    let (network, block) = V6.iter().find(|(network, _)| network.contains(&address))?;
    let reachable = *network == PROTOCOL_ASSIGNMENTS
        && REACHABLE_ASSIGNMENTS
            .iter()
            .any(|part| part.contains(&address));
    (!reachable).then_some(block)
}

fn carried_by_v6(address: Ipv6Addr) -> [Option<Carried>; 3] {
    let bits = address.to_bits();
    let octets = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    let carried = |address, form| Some(Carried { address, form });
    let mut found = [None; 3];
    match address.segments() {
        // `::` and `::1` are blocks of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => {}
        [0, 0, 0, 0, 0, 0, _, _] => {
            found[0] = carried(octets(0), "IPv4-compatible, RFC 4291 §2.5.5.1");
        }
        [0, 0, 0, 0, 0, 0xffff, _, _] => {
            found[0] = carried(octets(0), "IPv4-mapped, RFC 4291 §2.5.5.2");
        }
        [0, 0, 0, 0, 0xffff, 0, _, _] => {
            found[0] = carried(octets(0), "IPv4-translated, RFC 2765 §2.1");
        }
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => found[0] = carried(octets(0), "NAT64, RFC 6052 §2.1"),
        [0x2002, ..] => found[0] = carried(octets(80), "6to4, RFC 3056 §2"),
        [0x2001, 0, ..] => {
            found[0] = carried(octets(64), "Teredo server, RFC 4380 §4");
            // The client's address is stored inverted, against NATs that rewrite addresses.
            let client = Ipv4Addr::from_bits(!octets(0).to_bits());
            found[1] = carried(client, "Teredo client, RFC 4380 §4");
        }
        _ => {}
    }
    // The identifier stands in the lower half of any prefix; the bit that differs says whether
    // the IPv4 address is globally unique.
    if let [_, _, _, _, 0 | 0x0200, 0x5efe, _, _] = address.segments() {
        found[2] = carried(octets(0), "ISATAP, RFC 5214 §6.1");
    }
    found
}

/// "IETF Protocol Assignments": special, less [`REACHABLE_ASSIGNMENTS`].
const PROTOCOL_ASSIGNMENTS: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23);

/// The globally reachable parts of `2001::/23`, as the registry lists them. Teredo, for which the
/// registry says neither, is judged by the addresses it carries.
const REACHABLE_ASSIGNMENTS: [Ipv6Net; 8] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 3], 128),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28),
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28),
];

/// `192.0.0.0/24` is denied whole: the anycast addresses in it that the registry calls reachable
/// (192.0.0.9, 192.0.0.10) are for finding NAT and multicast services, not for HTTP. Broadcast
/// stands before the block around it.
const V4: [(Ipv4Net, Block); 16] = [
    (
        v4([0, 0, 0, 0], 8),
        block("0.0.0.0/8", "This network", "RFC 791 §3.2"),
    ),
    (
        v4([10, 0, 0, 0], 8),
        block("10.0.0.0/8", "Private-Use", "RFC 1918"),
    ),
    (
        v4([100, 64, 0, 0], 10),
        block("100.64.0.0/10", "Shared Address Space", "RFC 6598"),
    ),
    (
        v4([127, 0, 0, 0], 8),
        block("127.0.0.0/8", "Loopback", "RFC 1122 §3.2.1.3"),
    ),
    (
        v4([169, 254, 0, 0], 16),
        block("169.254.0.0/16", "Link Local", "RFC 3927"),
    ),
    (
        v4([172, 16, 0, 0], 12),
        block("172.16.0.0/12", "Private-Use", "RFC 1918"),
    ),
    (
        v4([192, 0, 0, 0], 24),
        block("192.0.0.0/24", "IETF Protocol Assignments", "RFC 6890 §2.1"),
    ),
    (
        v4([192, 0, 2, 0], 24),
        block("192.0.2.0/24", "Documentation (TEST-NET-1)", "RFC 5737"),
    ),
    (
        v4([192, 88, 99, 0], 24),
        block(
            "192.88.99.0/24",
            "Deprecated 6to4 Relay Anycast",
            "RFC 7526",
        ),
    ),
    (
        v4([192, 168, 0, 0], 16),
        block("192.168.0.0/16", "Private-Use", "RFC 1918"),
    ),
    (
        v4([198, 18, 0, 0], 15),
        block("198.18.0.0/15", "Benchmarking", "RFC 2544"),
    ),
    (
        v4([198, 51, 100, 0], 24),
        block("198.51.100.0/24", "Documentation (TEST-NET-2)", "RFC 5737"),
    ),
    (
        v4([203, 0, 113, 0], 24),
        block("203.0.113.0/24", "Documentation (TEST-NET-3)", "RFC 5737"),
    ),
    (
        v4([224, 0, 0, 0], 4),
        block("224.0.0.0/4", "Multicast", "RFC 5771"),
    ),
    (
        v4([255, 255, 255, 255], 32),
        block("255.255.255.255/32", "Limited Broadcast", "RFC 919"),
    ),
    (
        v4([240, 0, 0, 0], 4),
        block("240.0.0.0/4", "Reserved", "RFC 1112 §4"),
    ),
];

const V6: [(Ipv6Net, Block); 13] = [
    (
        v6([0; 8], 128),
        block("::/128", "Unspecified Address", "RFC 4291 §2.5.2"),
    ),
    (
        v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
        block("::1/128", "Loopback Address", "RFC 4291 §2.5.3"),
    ),
    (
        v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
        block("64:ff9b:1::/48", "IPv4-IPv6 Translation", "RFC 8215"),
    ),
    (
        v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
        block("100::/64", "Discard-Only", "RFC 6666"),
    ),
    (
        v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64),
        block("100:0:0:1::/64", "Dummy Prefix", "RFC 9780"),
    ),
    (
        PROTOCOL_ASSIGNMENTS,
        block("2001::/23", "IETF Protocol Assignments", "RFC 2928"),
    ),
    (
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
        block("2001:db8::/32", "Documentation", "RFC 3849"),
    ),
    (
        v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
        block("3fff::/20", "Documentation", "RFC 9637"),
    ),
    (
        v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
        block("5f00::/16", "SRv6 SIDs", "RFC 9602"),
    ),
    (
        v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
        block("fc00::/7", "Unique-Local", "RFC 4193"),
    ),
    (
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        block("fe80::/10", "Link-Local Unicast", "RFC 4291 §2.5.6"),
    ),
    (
        v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
        block("fec0::/10", "Deprecated Site-Local", "RFC 3879"),
    ),
    (
        v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
        block("ff00::/8", "Multicast", "RFC 4291 §2.7"),
    ),
];

const fn block(range: &'static str, name: &'static str, source: &'static str) -> Block {
    Block {
        range,
        name,
        source,
    }
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

#[cfg(test)]
mod tests;
