//! Where replicas may be that somebody names who does not own the machine: whoever may write a service must not be able to
//! make the gateway call its own control ports or the cloud's metadata.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// Which addresses replicas may have. Judges addresses, never names: it is asked again with what a name means at the
/// moment of each connect, so that an answer that changes in between (DNS rebinding) gains nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    own: Vec<SocketAddr>,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// `0.0.0.0/8` or `::`: the machine itself under no name.
    Unspecified,
    /// `169.254.0.0/16` or `fe80::/10`.
    LinkLocal,
    /// Where a cloud hands out credentials of the machine.
    Metadata,
    /// More than one machine.
    Multicast,
    /// The gateway itself.
    Own,
    /// On the list of refused networks.
    Denied,
    /// Not on the list of permitted networks.
    NotAllowed,
}

/// Instance metadata and platform services of clouds: AWS, Azure, Google and most others; Alibaba; Azure's WireServer;
/// Oracle. Those within `169.254.0.0/16` are refused as such.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// AWS instance metadata and pod identity; Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

impl AddressPolicy {
    /// A policy that also refuses the gateway's `own` sockets as they are bound; an unspecified address stands for every
    /// address of this machine.
    #[must_use]
    pub const fn new(own: Vec<SocketAddr>) -> Self {
        Self { own, allow: Vec::new(), deny: Vec::new() }
    }

    /// Restricts replicas to the networks `allow` (empty: everywhere) without the networks `deny`. What is refused anyway
    /// stays so.
    #[must_use]
    pub fn with_networks(self, allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny, ..self }
    }

    /// Whether a replica may be at `address` and `port`. An IPv6 address that carries an IPv4 address is judged as both.
    ///
    /// # Errors
    /// Why not.
    pub fn permits(&self, address: IpAddr, port: u16) -> Result<(), Forbidden> {
        let plain = match address {
            IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        for address in std::iter::once(address).chain(plain) {
            match class(address) {
                Some(forbidden) => return Err(forbidden),
                None if self.is_own(address, port) => return Err(Forbidden::Own),
                None if contains(&self.deny, address) => return Err(Forbidden::Denied),
                None => {}
            }
        }
        let allowed = |address| contains(&self.allow, address);
        if self.allow.is_empty() || allowed(plain.unwrap_or(address)) {
            Ok(())
        } else {
            Err(Forbidden::NotAllowed)
        }
    }

    fn is_own(&self, address: IpAddr, port: u16) -> bool {
        let mut own = self.own.iter().filter(|own| own.port() == port);
        own.any(|own| match own.ip().to_canonical() {
            ip if ip.is_unspecified() => is_of_this_machine(address),
            ip => ip == address,
        })
    }
}

fn class(address: IpAddr) -> Option<Forbidden> {
    match address {
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some(Forbidden::Metadata),
        // The whole block: RFC 1122, section 3.2.1.3.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some(Forbidden::Unspecified),
        IpAddr::V4(v4) if v4.is_link_local() => Some(Forbidden::LinkLocal),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some(Forbidden::Multicast),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => Some(Forbidden::Metadata),
        IpAddr::V6(v6) if v6.is_unspecified() => Some(Forbidden::Unspecified),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Forbidden::LinkLocal),
        IpAddr::V6(v6) if v6.is_multicast() => Some(Forbidden::Multicast),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The IPv4 address that packets to an IPv6 address may end up at: mapped and compatible (RFC 4291, section 2.5.5),
/// translated (RFC 2765, section 2.1; RFC 6052, section 2.1), 6to4 (RFC 3056, section 2).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] if g != 0 => of(g, h),
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => of(g, h),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Only addresses of the machine can be bound to. Asked only for a port that the gateway itself has.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "it is an unspecified address",
            Self::LinkLocal => "it is a link-local address",
            Self::Metadata => "it is a metadata service of a cloud",
            Self::Multicast => "it is a multicast or broadcast address",
            Self::Own => "it is the gateway itself",
            Self::Denied => "it is in a network that replicas must not be in",
            Self::NotAllowed => "it is in none of the networks that replicas may be in",
        })
    }
}

impl std::error::Error for Forbidden {}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &AddressPolicy, address: &str) -> Result<(), Forbidden> {
        policy.permits(address.parse().unwrap(), 5001)
    }

    #[test]
    fn what_no_replica_can_be_is_refused_in_every_spelling() {
        let policy = AddressPolicy::default();
        for (address, forbidden) in [
            ("0.0.0.0", Forbidden::Unspecified),
            ("0.1.2.3", Forbidden::Unspecified),
            ("169.254.0.1", Forbidden::LinkLocal),
            ("169.254.169.254", Forbidden::Metadata),
            ("168.63.129.16", Forbidden::Metadata),
            ("100.100.100.200", Forbidden::Metadata),
            ("224.0.0.1", Forbidden::Multicast),
            ("239.255.255.255", Forbidden::Multicast),
            ("255.255.255.255", Forbidden::Multicast),
        ] {
            assert_eq!(verdict(&policy, address), Err(forbidden), "{address}");
            let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for (prefix, suffix) in [("::ffff:", ""), ("::ffff:0:", ""), ("64:ff9b::", ""), ("2002:", "::1")]
            {
                let spelled = format!("{prefix}{high:x}:{low:x}{suffix}");
                assert_eq!(verdict(&policy, &spelled), Err(forbidden), "{spelled}");
            }
        }
        for (address, forbidden) in [
            ("::", Forbidden::Unspecified),
            ("::169.254.169.254", Forbidden::Metadata),
            ("fe80::1", Forbidden::LinkLocal),
            ("febf:ffff::1", Forbidden::LinkLocal),
            ("ff02::1", Forbidden::Multicast),
            ("fd00:ec2::254", Forbidden::Metadata),
            ("fd20:ce::254", Forbidden::Metadata),
        ] {
            assert_eq!(verdict(&policy, address), Err(forbidden), "{address}");
        }
    }

    #[test]
    fn replicas_are_wherever_else_they_like() {
        let policy = AddressPolicy::new(vec!["127.0.0.1:9443".parse().unwrap()]);
        for address in
            ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"]
        {
            assert_eq!(verdict(&policy, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn the_gateway_is_no_replica_of_itself() {
        let own = |address: &str| AddressPolicy::new(vec![address.parse().unwrap()]);
        for (bound, address, refused) in [
            ("127.0.0.1:5001", "127.0.0.1", true),
            ("127.0.0.1:5001", "::ffff:127.0.0.1", true),
            ("[::ffff:127.0.0.1]:5001", "127.0.0.1", true),
            ("127.0.0.1:5001", "::1", false),
            ("127.0.0.1:5002", "127.0.0.1", false),
            ("192.0.2.7:5001", "192.0.2.7", true),
            ("192.0.2.7:5001", "127.0.0.1", false),
            // Every address of this machine; 192.0.2.0/24 is nobody's (RFC 5737).
            ("0.0.0.0:5001", "127.0.0.1", true),
            ("0.0.0.0:5001", "127.8.8.8", true),
            ("[::]:5001", "127.0.0.1", true),
            ("[::]:5001", "::1", true),
            ("0.0.0.0:5001", "192.0.2.7", false),
            ("0.0.0.0:5002", "127.0.0.1", false),
        ] {
            let expected = if refused { Err(Forbidden::Own) } else { Ok(()) };
            assert_eq!(verdict(&own(bound), address), expected, "{bound} {address}");
        }
    }

    #[test]
    fn networks_narrow_and_never_widen() {
        let networks = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
        let policy = AddressPolicy::default().with_networks(
            networks(&["10.0.0.0/8", "169.254.0.0/16", "2001:db8::/32"]),
            networks(&["10.9.0.0/16"]),
        );
        for (address, expected) in [
            ("10.1.2.3", Ok(())),
            ("::ffff:10.1.2.3", Ok(())),
            ("2001:db8::1", Ok(())),
            ("10.9.0.1", Err(Forbidden::Denied)),
            ("::ffff:10.9.0.1", Err(Forbidden::Denied)),
            ("11.0.0.1", Err(Forbidden::NotAllowed)),
            ("::1", Err(Forbidden::NotAllowed)),
            ("169.254.0.1", Err(Forbidden::LinkLocal)),
        ] {
            assert_eq!(verdict(&policy, address), expected, "{address}");
        }
    }
}
