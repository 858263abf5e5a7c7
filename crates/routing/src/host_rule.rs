//! Addresses and networks a client may connect from.

use ipnet::IpNet;
use std::net::IpAddr;

/// Where a client may connect from by network. UNIX peers skip it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRule {
    /// `None` allows every address of both families.
    networks: Option<Vec<IpNet>>,
}

impl HostRule {
    /// Allows every address.
    pub const fn any() -> Self {
        Self { networks: None }
    }

    /// Allows these networks; none at all means nobody by network.
    pub const fn networks(networks: Vec<IpNet>) -> Self {
        Self { networks: Some(networks) }
    }

    /// True if a client may come from `address`. IPv4 peers of a dual-stack listener count as IPv4.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .as_ref()
            .is_none_or(|networks| networks.iter().any(|network| network.contains(&address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_and_mapped_addresses() {
        let rule = HostRule::networks(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("fd00::1", true),
            ("10.0.0.1", false),
            ("::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(rule.allows(address), allowed, "{address}");
            assert!(HostRule::any().allows(address));
            assert!(!HostRule::networks(Vec::new()).allows(address));
        }
    }
}
