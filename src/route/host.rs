//! Which hosts a service may have: full names and canonical addresses, each in one spelling.

use std::net::IpAddr;

/// Longest DNS name and label, in bytes (RFC 1035, section 2.3.4).
const MAX_DNS_NAME: usize = 253;
const MAX_DNS_LABEL: usize = 63;

/// Why `host` cannot be the host of a service; `None` if it can.
#[must_use]
pub fn host_problem(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        let canonical = address.to_string();
        return (canonical != host).then(|| format!("'{host}' is to be written {canonical}"));
    }
    let lower = host.to_ascii_lowercase();
    if lower != host {
        return Some(format!("'{host}' is not lower case; write {lower}"));
    }
    if host.contains("://") || host.contains('/') {
        return Some(format!("'{host}' is a URL; write the host alone"));
    }
    if host.contains(['[', ':']) {
        return Some(format!("'{host}' has a port or brackets; write the name or address alone"));
    }
    if host.contains('*') {
        return Some(format!("'{host}' is a pattern; list each host by its full name"));
    }
    let label_is_good = |label: &str| {
        (1..=MAX_DNS_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let good = host.len() <= MAX_DNS_NAME && host.split('.').all(label_is_good);
    (!good).then(|| format!("'{host}' is no host name; write one such as iris.example.org"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_names_or_canonical_addresses() {
        for good in ["iris", "iris.example.org", "127.0.0.1", "::1", "a_b.local"] {
            assert_eq!(host_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "Iris.example.org",
            "iris.example.org:443",
            "iris.example.org.",
            "[::1]",
            "0:0::1",
            "*.example.org",
            "https://iris.example.org",
            "-a.example",
            "a..b",
            "schl\u{fc}ssel.example",
        ] {
            assert!(host_problem(bad).is_some(), "{bad}");
        }
    }
}
