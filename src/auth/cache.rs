//! Tokens that were verified once, so that a warm one costs a digest and a look-up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;

use super::Digest;
use super::claims::Verified;

/// Most tokens that one verifier remembers, give or take one per worker; about 150 bytes each.
const MAX_TOKENS: usize = 10_000;

/// Verified tokens by the SHA-256 of the whole token: two tokens share an entry only if they are equal to the last byte.
///
/// An entry belongs to the generation of keys that verified it and is worth nothing under another one. The table is made with
/// the first entry: an empty one has some 500 bytes per CPU, and most of many services are idle.
#[derive(Default)]
pub(super) struct TokenCache {
    tokens: OnceLock<DashMap<Digest, Entry>>,
}

struct Entry {
    verified: Arc<Verified>,
    generation: u64,
}

impl TokenCache {
    /// What the keys of `generation` found out about the token; whether it still lasts is for the caller to ask.
    pub(super) fn get(&self, token: &Digest, generation: u64) -> Option<Arc<Verified>> {
        let entry = self.tokens.get()?.get(token)?;
        (entry.generation == generation).then(|| Arc::clone(&entry.verified))
    }

    /// Remembers a verified token. When the place is used up, what is over or of another generation goes; if that
    /// does not free half of it, everything does, so that room is not sought again at each insertion.
    pub(super) fn insert(&self, token: Digest, verified: Arc<Verified>, generation: u64, now: Duration) {
        let tokens = self.tokens.get_or_init(DashMap::default);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, entry| entry.generation == generation && !entry.verified.is_over(now));
            if tokens.len() > MAX_TOKENS / 2 {
                tokens.clear();
            }
        }
        let entry = Entry { verified, generation };
        tokens.insert(token, entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tokens.get().map_or(0, DashMap::len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{ISSUER, NOW, SERVICE, claims};
    use super::super::{claims::Expected, sha256};
    use super::*;

    fn verified(exp: u64) -> Arc<Verified> {
        let expected = Expected { issuer: ISSUER, audience: SERVICE, leeway: Duration::ZERO };
        let claims = claims(&[("exp", &exp.to_string())]);
        let claims = serde_json::from_str(&claims).unwrap();
        Arc::new(expected.judge(claims, Duration::from_secs(NOW)).unwrap())
    }

    fn digest(number: usize) -> Digest {
        sha256(&number.to_le_bytes())
    }

    #[test]
    fn an_entry_counts_under_its_own_generation_only() {
        let cache = TokenCache::default();
        cache.insert(digest(1), verified(NOW + 9), 4, Duration::from_secs(NOW));
        assert!(cache.get(&digest(1), 4).is_some());
        assert!(cache.get(&digest(1), 5).is_none());
        assert!(cache.get(&digest(2), 4).is_none());
    }

    #[test]
    fn a_full_cache_drops_what_is_over_before_what_is_not() {
        let (cache, now) = (TokenCache::default(), Duration::from_secs(NOW));
        for number in 0..MAX_TOKENS {
            let exp = if number < 100 { NOW + 100 } else { NOW + 1 };
            cache.insert(digest(number), verified(exp), 0, now);
        }
        let later = Duration::from_secs(NOW + 1);
        cache.insert(digest(MAX_TOKENS), verified(NOW + 100), 0, later);
        assert_eq!(cache.len(), 101);
        assert!(cache.get(&digest(0), 0).is_some());
    }

    #[test]
    fn a_cache_full_of_living_tokens_starts_afresh() {
        let (cache, now) = (TokenCache::default(), Duration::from_secs(NOW));
        for number in 0..=MAX_TOKENS {
            cache.insert(digest(number), verified(NOW + 100), 0, now);
        }
        assert_eq!(cache.len(), 1);
    }
}
