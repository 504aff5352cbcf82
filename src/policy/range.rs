//! Address ranges looked up by address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::address;

/// Values by address range. A look-up asks one hash table per prefix length in use (at most 33
/// for IPv4, 129 for IPv6), whatever the number of ranges.
#[derive(Debug)]
pub(super) struct RangeMap<V> {
    v4: Lengths<u32, V>,
    v6: Lengths<u128, V>,
}

/// One table for each prefix length in use, the longest first.
type Lengths<K, V> = Vec<(u8, HashMap<K, (IpNet, V)>)>;

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

impl<V: Default> RangeMap<V> {
    /// The value of exactly this range, made if it is new. Host bits of `net` do not count.
    pub(super) fn entry(&mut self, net: IpNet) -> &mut V {
        let net = net.trunc();
        match net {
            IpNet::V4(inner) => {
                let table = table(&mut self.v4, inner.prefix_len());
                &mut table
                    .entry(inner.addr().to_bits())
                    .or_insert((net, V::default()))
                    .1
            }
            IpNet::V6(inner) => {
                let table = table(&mut self.v6, inner.prefix_len());
                &mut table
                    .entry(inner.addr().to_bits())
                    .or_insert((net, V::default()))
                    .1
            }
        }
    }
}

impl<V> RangeMap<V> {
    /// Every range, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(IpNet, V)> {
        let v4 = self.v4.iter().flat_map(|(_, table)| table.values());
        v4.chain(self.v6.iter().flat_map(|(_, table)| table.values()))
    }

    /// Every range that contains `address` as it stands, the longest prefix first.
    pub(super) fn containing(&self, address: IpAddr) -> impl Iterator<Item = &(IpNet, V)> {
        let (v4, v6) = match address {
            IpAddr::V4(address) => (Some(address.to_bits()), None),
            IpAddr::V6(address) => (None, Some(address.to_bits())),
        };
        let v4 = v4.into_iter().flat_map(|bits| {
            self.v4
                .iter()
                .filter_map(move |(length, table)| table.get(&(bits & mask32(*length))))
        });
        let v6 = v6.into_iter().flat_map(|bits| {
            self.v6
                .iter()
                .filter_map(move |(length, table)| table.get(&(bits & mask128(*length))))
        });
        v4.chain(v6)
    }

    /// Every range that a person would say names `address`. An IPv4-mapped address is dialled as
    /// IPv4, so the ranges of that address name it, and of the IPv6 ranges only those within
    /// `::ffff:0:0/96`: whoever writes `::/0` does not mean IPv4.
    pub(super) fn naming(&self, address: IpAddr) -> impl Iterator<Item = &(IpNet, V)> {
        let canonical = address.to_canonical();
        let mapped = (canonical != address).then_some(address);
        let within = mapped
            .into_iter()
            .flat_map(|address| self.containing(address))
            .filter(|(net, _)| net.prefix_len() >= MAPPED_PREFIX);
        self.containing(canonical).chain(within)
    }

    /// Every range that contains `address` or an IPv4 address it carries.
    pub(super) fn touching(&self, address: IpAddr) -> impl Iterator<Item = &(IpNet, V)> {
        let carried = address::carried(address)
            .flat_map(|carried| self.containing(IpAddr::V4(carried.address)));
        self.containing(address).chain(carried)
    }
}

/// A set of address ranges.
#[derive(Debug, Default)]
pub(super) struct RangeSet(RangeMap<()>);

impl RangeSet {
    /// Whether a range of the set names `address`; see [`RangeMap::naming`].
    pub(super) fn names(&self, address: IpAddr) -> bool {
        self.0.naming(address).next().is_some()
    }

    /// A range of the set that contains `address` or an IPv4 address it carries.
    pub(super) fn touched_by(&self, address: IpAddr) -> Option<IpNet> {
        self.0.touching(address).next().map(|(net, ())| *net)
    }
}

impl Extend<IpNet> for RangeSet {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, ranges: I) {
        for net in ranges {
            self.0.entry(net);
        }
    }
}

impl FromIterator<IpNet> for RangeSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(ranges: I) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

/// `::ffff:0:0/96` (RFC 4291 §2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

fn table<K: Eq + Hash, V>(lengths: &mut Lengths<K, V>, length: u8) -> &mut HashMap<K, (IpNet, V)> {
    let at = lengths.partition_point(|(other, _)| *other > length);
    if lengths.get(at).is_none_or(|(other, _)| *other != length) {
        lengths.insert(at, (length, HashMap::new()));
    }
    &mut lengths[at].1
}

fn mask32(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask128(length: u8) -> u128 {
    u128::MAX
        .checked_shl(Ipv6Addr::BITS - u32::from(length))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[&str]) -> RangeSet {
        ranges
            .iter()
            .map(|range| range.parse::<IpNet>().unwrap())
            .collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_comes_first() {
        let mut map = RangeMap::<u8>::default();
        for (value, range) in ["10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16", "10.1.2.3/32"]
            .iter()
            .enumerate()
        {
            *map.entry(range.parse().unwrap()) = u8::try_from(value).unwrap();
        }
        let found: Vec<_> = map
            .containing(ip("10.1.2.3"))
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(found, [3, 2, 0, 1]);
        assert_eq!(map.containing(ip("11.0.0.1")).count(), 1);
    }

    #[test]
    fn a_mapped_address_is_named_by_ipv4_ranges_and_not_by_all_of_ipv6() {
        assert!(set(&["10.0.0.0/8"]).names(ip("::ffff:10.1.2.3")));
        assert!(set(&["::ffff:10.0.0.0/104"]).names(ip("::ffff:10.1.2.3")));
        assert!(!set(&["::/0"]).names(ip("::ffff:10.1.2.3")));
        assert!(set(&["::/0"]).names(ip("2001:db8::1")));
        assert!(!set(&["10.0.0.0/8"]).names(ip("64:ff9b::10.1.2.3")));
    }

    #[test]
    fn a_range_is_touched_through_every_form_that_carries_it() {
        let set = set(&["8.8.8.0/24"]);
        for address in [
            "8.8.8.8",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:0:101:101::f7f7:f7f7",
            "2a00::5efe:8.8.8.8",
        ] {
            assert!(set.touched_by(ip(address)).is_some(), "{address}");
        }
        assert!(set.touched_by(ip("8.8.9.8")).is_none());
    }
}
