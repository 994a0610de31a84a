//! What a name's addresses mean: which of them are hosts of their own, and how many are taken.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How replicas that are given by name are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamesSettings {
    /// `refresh`: from one look-up to the next.
    pub refresh: Duration,
}

impl NamesSettings {
    /// Bounds of `refresh`.
    pub const REFRESH: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
}

impl Default for NamesSettings {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(5) }
    }
}

/// Most hosts of one name; further ones are left out.
pub const MAX_HOSTS: usize = 64;

/// The addresses of one host, in the order in which they are to be tried; at least one.
pub type HostAddresses = Vec<SocketAddr>;

/// The hosts of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// At most [`MAX_HOSTS`], always in the same order for the same addresses: servers of names like to shuffle them.
    pub hosts: Vec<HostAddresses>,
    /// How many hosts were left out.
    pub left_out: usize,
}

impl Hosts {
    /// Reads an answer: each address is a host of its own, as those of a headless service of Kubernetes are.
    ///
    /// An answer in both families is mostly the same hosts told twice, and a host that counted twice would get twice its
    /// share. So only the family with more addresses counts, IPv4 where they are as many. One address in each family is one
    /// host (`localhost` is the best known): both are tried, in the order of the answer.
    #[must_use]
    pub fn of(mut answer: Vec<SocketAddr>) -> Self {
        let mut seen = Vec::with_capacity(answer.len());
        answer.retain(|address| {
            let is_new = !seen.contains(address);
            seen.push(*address);
            is_new
        });
        let of_v4 = answer.iter().filter(|address| is_v4(address)).count();
        let of_v6 = answer.len() - of_v4;
        if (of_v4, of_v6) == (1, 1) {
            return Self { hosts: vec![answer], left_out: 0 };
        }
        answer.retain(|address| is_v4(address) == (of_v4 >= of_v6));
        answer.sort_unstable();
        let left_out = answer.len().saturating_sub(MAX_HOSTS);
        answer.truncate(MAX_HOSTS);
        Self { hosts: answer.into_iter().map(|address| vec![address]).collect(), left_out }
    }
}

fn is_v4(address: &SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V4(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(answer: &[&str]) -> Vec<Vec<String>> {
        let hosts = Hosts::of(answer.iter().map(|address| address.parse().unwrap()).collect());
        assert_eq!(hosts.left_out, 0);
        hosts.hosts.iter().map(|host| host.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn each_address_is_a_host_whatever_their_order() {
        let expected = [["10.0.0.1:5001"], ["10.0.0.2:5001"]];
        assert_eq!(hosts(&["10.0.0.1:5001", "10.0.0.2:5001"]), expected);
        assert_eq!(hosts(&["10.0.0.2:5001", "10.0.0.1:5001", "10.0.0.2:5001"]), expected);
        assert_eq!(hosts(&["[::1]:5001"]), [["[::1]:5001"]]);
        assert!(hosts(&[]).is_empty());
    }

    #[test]
    fn a_host_with_two_families_is_one() {
        assert_eq!(hosts(&["[::1]:1", "127.0.0.1:1"]), [["[::1]:1", "127.0.0.1:1"]]);
        assert_eq!(hosts(&["127.0.0.1:1", "[::1]:1"]), [["127.0.0.1:1", "[::1]:1"]]);
        let both = ["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "10.0.0.2:1"];
        assert_eq!(hosts(&both), [["10.0.0.1:1"], ["10.0.0.2:1"]]);
        let more_of_v6 = ["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1"];
        assert_eq!(hosts(&more_of_v6), [["[fd00::1]:1"], ["[fd00::2]:1"]]);
    }

    #[test]
    fn so_many_are_taken_and_always_the_same() {
        let address = |number: u8| SocketAddr::new([10, 0, 0, number].into(), 1);
        let some = Hosts::of((0..70).map(address).collect());
        assert_eq!((some.hosts.len(), some.left_out), (64, 6));
        assert_eq!(Hosts::of((0..70).rev().map(address).collect()), some);
    }
}
