//! What of a call is told: how much of the caller, and which parameters of a URL carry secrets and are masked.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::settings::Privacy;

/// What the process tells of calls. Clones share the names, which may change while it runs.
#[derive(Clone, Debug)]
pub struct Disclosure {
    privacy: Privacy,
    masked: Arc<ArcSwap<MaskedNames>>,
}

/// Names of query parameters whose values are secrets, beside those that everybody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskedNames(Vec<Folded>);

/// A parameter's name as it is compared: decoded, in lower case, without `-` and `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Folded {
    bytes: [u8; MaskedNames::LONGEST],
    len: usize,
}

/// Parameters whose values are secrets in whatever service, folded.
const KNOWN: [&[u8]; 17] = [
    b"accesstoken",
    b"apikey",
    b"authorization",
    b"clientsecret",
    b"code",
    b"idtoken",
    b"key",
    b"ocpapimsubscriptionkey",
    b"password",
    b"refreshtoken",
    b"secret",
    b"sig",
    b"signature",
    b"subscriptionkey",
    b"token",
    b"xamzsignature",
    b"xfunctionskey",
];

impl Disclosure {
    /// What `privacy` lets out, with the values of `masked` parameters hidden.
    #[must_use]
    pub fn new(privacy: Privacy, masked: MaskedNames) -> Self {
        Self { privacy, masked: Arc::new(ArcSwap::from_pointee(masked)) }
    }

    /// Has these parameters masked from now on, instead of those before.
    pub fn mask(&self, names: &MaskedNames) {
        if **self.masked.load() != *names {
            self.masked.store(Arc::new(names.clone()));
        }
    }

    pub(super) const fn privacy(&self) -> Privacy {
        self.privacy
    }

    pub(super) fn masked(&self) -> Guard<Arc<MaskedNames>> {
        self.masked.load()
    }
}

impl MaskedNames {
    /// Most names.
    pub const MOST: usize = 64;
    /// Longest name, in bytes.
    pub const LONGEST: usize = 64;

    /// Adds a name, decoded.
    ///
    /// # Errors
    /// It can be no parameter's name, or there are enough of them; why, for whoever wrote it.
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        let is_letter = |byte: u8| byte.is_ascii_graphic() && !b"&;=%+#?".contains(&byte);
        if self.0.len() == Self::MOST {
            return Err(format!("is one too many; allowed are {} names", Self::MOST));
        }
        if name.len() > Self::LONGEST {
            let (length, longest) = (name.len(), Self::LONGEST);
            return Err(format!("has {length} bytes; allowed are 1 to {longest}"));
        }
        if !name.bytes().all(is_letter) {
            return Err(
                "has a character that is none of a name; write it decoded, in printable ASCII without \
                        spaces and & ; = % + # ?"
                    .to_owned(),
            );
        }
        match Folded::of(name.as_bytes()) {
            Some(folded) if folded.len > 0 => self.0.push(folded),
            _ => return Err("has no letter; - and _ do not count when names are compared".to_owned()),
        }
        Ok(())
    }

    /// Whether the values of the parameter of that `name`, as it stands in a URL, are secrets: in any case, with or without
    /// `-` and `_`, percent-encoded or not.
    pub(super) fn hold(&self, name: &[u8]) -> bool {
        Folded::of(name)
            .is_some_and(|name| KNOWN.contains(&&name.bytes[..name.len]) || self.0.contains(&name))
    }
}

impl Folded {
    /// `None`: longer than any name that is masked.
    fn of(name: &[u8]) -> Option<Self> {
        let mut folded = Self { bytes: [0; MaskedNames::LONGEST], len: 0 };
        let mut rest = name;
        while let Some((byte, after)) = next_decoded(rest) {
            rest = after;
            if matches!(byte, b'-' | b'_') {
                continue;
            }
            *folded.bytes.get_mut(folded.len)? = byte.to_ascii_lowercase();
            folded.len += 1;
        }
        Some(folded)
    }
}

/// The first byte of `text`, percent-decoded, and what follows it.
fn next_decoded(text: &[u8]) -> Option<(u8, &[u8])> {
    let hex = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    match text {
        [b'%', high, low, rest @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
            Some((hex(*high)? << 4 | hex(*low)?, rest))
        }
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> MaskedNames {
        let mut masked = MaskedNames::default();
        names.iter().for_each(|name| masked.add(name).unwrap());
        masked
    }

    #[test]
    fn a_configured_name_is_masked_in_any_spelling_and_no_other_is() {
        let masked = names(&["Patient-Id", "$sig.v2", "x"]);
        for name in ["patient-id", "PATIENT_ID", "patientid", "%70atient%2did", "%24sig.v2", "%58", "key"] {
            assert!(masked.hold(name.as_bytes()), "{name}");
        }
        for name in ["patient", "patient.id", "sig.v2", "xx", "", "-", "%zz", "patient%"] {
            assert!(!masked.hold(name.as_bytes()), "{name}");
        }
        assert!(!names(&[]).hold(b"patient-id"));
    }

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let longest = "n".repeat(MaskedNames::LONGEST);
        let masked = names(&[&longest]);
        assert!(masked.hold(longest.as_bytes()) && masked.hold(format!("-{longest}").as_bytes()));
        assert!(!masked.hold(format!("{longest}n").as_bytes()));
        let mut full = MaskedNames::default();
        (0..MaskedNames::MOST).for_each(|number| full.add(&format!("name{number}")).unwrap());
        for (masked, name, why) in [
            (&mut full, "more", "is one too many; allowed are 64 names"),
            (&mut names(&[]), &*format!("{longest}n"), "has 65 bytes; allowed are 1 to 64"),
            (&mut names(&[]), "a=b", "has a character that is none of a name"),
            (&mut names(&[]), "a%20b", "has a character that is none of a name"),
            (&mut names(&[]), "\u{e9}", "has a character that is none of a name"),
            (&mut names(&[]), "-_", "has no letter"),
            (&mut names(&[]), "", "has no letter"),
        ] {
            let refused = masked.add(name).unwrap_err();
            assert!(refused.starts_with(why), "{name}: {refused}");
        }
    }

    #[test]
    fn a_change_reaches_all_who_share_it() {
        let here = Disclosure::new(Privacy::Standard, MaskedNames::default());
        let there = here.clone();
        here.mask(&names(&["patient"]));
        assert!(there.masked().hold(b"patient"));
        here.mask(&MaskedNames::default());
        assert!(!there.masked().hold(b"patient"));
    }
}
