//! Who a client is, by the clients of the policy file.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::range::RangeMap;

/// The clients a policy knows by name.
#[derive(Debug, Default)]
pub struct Clients {
    networks: RangeMap<Option<Arc<str>>>,
    users: HashMap<Box<str>, Arc<str>>,
}

impl Clients {
    /// Addresses in a network are this client, unless a narrower network says otherwise; tells
    /// whether the network was new.
    pub fn add_network(&mut self, network: IpNet, name: Arc<str>) -> bool {
        self.networks.entry(network).replace(name).is_none()
    }

    /// Whoever gives this user name is this client; tells whether the user was new.
    pub fn add_user(&mut self, user: &str, name: Arc<str>) -> bool {
        self.users.insert(user.into(), name).is_none()
    }

    /// Whether a user name can make a client known.
    #[must_use]
    pub fn know_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether there is a client of this name.
    #[must_use]
    pub fn know(&self, name: &str) -> bool {
        self.networks().any(|(_, other)| **other == *name)
            || self.users().any(|(_, other)| **other == *name)
    }

    /// The networks, each with the name of its client, in no order.
    pub fn networks(&self) -> impl Iterator<Item = (IpNet, &Arc<str>)> {
        let networks = self.networks.iter();
        networks.filter_map(|(network, name)| Some((*network, name.as_ref()?)))
    }

    /// The user names, each with the name of its client, in no order.
    pub fn users(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.users.iter().map(|(user, name)| (&**user, name))
    }

    /// The client with this user name, else the one with this address.
    #[must_use]
    pub fn identify(&self, address: IpAddr, user: Option<&str>) -> Option<Arc<str>> {
        let by_user = user.and_then(|user| self.users.get(user));
        let by_address = || {
            let mut networks = self.networks.naming(address);
            networks.find_map(|(_, name)| name.as_ref())
        };
        by_user.or_else(by_address).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_comes_before_an_address_and_a_narrow_network_before_a_wide_one() {
        let mut clients = Clients::default();
        for (network, name) in [
            ("10.0.0.0/8", "all"),
            ("10.1.0.0/16", "ci"),
            ("fd00::/8", "six"),
        ] {
            assert!(clients.add_network(network.parse().unwrap(), name.into()));
        }
        assert!(clients.add_user("batch", "batch".into()));
        let identify = |address: &str, user| clients.identify(address.parse().unwrap(), user);
        assert_eq!(identify("10.1.2.3", None).as_deref(), Some("ci"));
        assert_eq!(identify("::ffff:10.2.2.3", None).as_deref(), Some("all"));
        assert_eq!(identify("fd00::1", None).as_deref(), Some("six"));
        assert_eq!(
            identify("10.1.2.3", Some("batch")).as_deref(),
            Some("batch")
        );
        assert_eq!(identify("10.1.2.3", Some("nobody")).as_deref(), Some("ci"));
        assert_eq!(identify("192.0.2.1", None), None);
    }
}
