//! W3C Trace Context: the ids of traces and spans, the `traceparent` header, and which traces are sampled.
//!
//! Sources: Trace Context level 1 (<https://www.w3.org/TR/trace-context-1/>), and of level 2
//! (<https://www.w3.org/TR/trace-context-2/>) the flag that says that a trace id is random.
//!
//! The ids of the gateway's own spans are derived from the request id and stored nowhere: whoever has the record has them.

use super::record::RequestId;

/// An id: so many lower-case hex digits, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id<const DIGITS: usize>([u8; DIGITS]);

/// The id of a trace.
pub type TraceId = Id<32>;

/// The id of a span.
pub type SpanId = Id<16>;

/// The flags of a trace that the specification knows; others are cleared, as it asks (level 1, 3.2.2.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFlags(u8);

/// What a `traceparent` header says: which span calls, of which trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The calling span.
    pub span_id: SpanId,
    /// What the caller does with the trace.
    pub flags: TraceFlags,
}

/// How the gateway takes part in traces: each attempt at a replica then names a span of its own as the one that calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Which of the traces that begin here are sampled. Of others the caller has decided.
    pub ratio: SampleRatio,
}

/// A share of all traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRatio {
    /// Least random value of a trace that is taken.
    threshold: u64,
}

/// How many values the random part of a trace id can have: its last 56 bits (level 2, 3.2.2.5.2).
const RANDOM_VALUES: u64 = 1 << 56;

impl<const DIGITS: usize> Id<DIGITS> {
    /// Reads that many lower-case hex digits, of which one is not zero.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        text.try_into().ok().filter(|_| is_id(text)).map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TraceId {
    /// The id as the number that its digits write, most significant byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let (high, low) = self.0.split_at(16);
        (u128::from(number(high)) << 64 | u128::from(number(low))).to_be_bytes()
    }

    /// The part that level 2 wants to be random.
    fn random(&self) -> u64 {
        number(&self.0[18..])
    }
}

impl SpanId {
    /// The id as the number that its digits write, most significant byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        number(&self.0).to_be_bytes()
    }

    /// The id that writes `number`; 1 for 0, which is no id.
    fn of(number: u64) -> Self {
        let number = number.max(1);
        let mut text = [0; 16];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = hex_digit((number >> (4 * place)) as u8 & 0xf);
        }
        Self(text)
    }
}

impl RequestId {
    /// The trace that begins with this call, where the caller named none: the same 32 digits.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        let mut text = [0; 32];
        for (to, from) in text.iter_mut().zip(self.digits()) {
            *to = from;
        }
        Id(text)
    }

    /// The gateway's own spans of this call: 0 is that of the call itself, from 1 on those of the attempts at replicas.
    /// The numbers of one call lie far apart, so that those of two calls meet no sooner than random ones do.
    #[must_use]
    pub fn span_id(&self, number: u32) -> SpanId {
        /// 2^64 divided by the golden ratio, odd: the steps come around to a number only after 2^64 of them.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let first = self.digits().skip(16).fold(0, |value, digit| value << 4 | u64::from(hex_value(digit)));
        SpanId::of(first.wrapping_add(u64::from(number).wrapping_mul(STEP)))
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.as_str().bytes().filter(|byte| *byte != b'-')
    }
}

impl TraceFlags {
    /// The caller may have recorded the trace.
    const SAMPLED: u8 = 0b01;
    /// The last 56 bits of the trace id are random (level 2).
    const RANDOM: u8 = 0b10;

    /// Reads two lower-case hex digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_read = text.len() == 2 && is_hex(text);
        is_read.then(|| Self(number(text) as u8 & (Self::SAMPLED | Self::RANDOM)))
    }

    /// Whether the caller may have recorded the trace.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    /// The flags as a number.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The flags as two hex digits.
    #[must_use]
    pub const fn to_text(self) -> [u8; 2] {
        [hex_digit(self.0 >> 4), hex_digit(self.0 & 0xf)]
    }
}

impl TraceParent {
    /// Bytes of a header of version 00.
    pub const LEN: usize = 55;

    /// Reads a header's value (level 1, 3.2); `None` if it is not valid. Of versions to come it reads what version 00 has
    /// (4.3).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(Self::LEN)?;
        let version = &known[..2];
        let is_form = is_hex(version)
            && [2, 35, 52].iter().all(|dash| known[*dash] == b'-')
            && match version {
                b"00" => rest.is_empty(),
                b"ff" => false,
                _ => rest.is_empty() || rest[0] == b'-',
            };
        if !is_form {
            return None;
        }
        Some(Self {
            trace_id: TraceId::parse(&known[3..35])?,
            span_id: SpanId::parse(&known[36..52])?,
            flags: TraceFlags::parse(&known[53..])?,
        })
    }

    /// The header's value, in version 00.
    #[must_use]
    pub fn to_header(&self) -> [u8; Self::LEN] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        value[3..35].copy_from_slice(&self.trace_id.0);
        value[36..52].copy_from_slice(&self.span_id.0);
        value[53..].copy_from_slice(&self.flags.to_text());
        value
    }
}

impl Tracing {
    /// What the gateway's span of that `number` tells whom it calls, in a call that came from `parent`.
    #[must_use]
    pub fn span(self, parent: Option<TraceParent>, request_id: &RequestId, number: u32) -> TraceParent {
        let span_id = request_id.span_id(number);
        match parent {
            Some(parent) => TraceParent { span_id, ..parent },
            None => {
                // Request ids are random where level 2 wants a trace id to be.
                let trace_id = request_id.trace_id();
                let sampled = if self.ratio.takes(&trace_id) { TraceFlags::SAMPLED } else { 0 };
                TraceParent { trace_id, span_id, flags: TraceFlags(TraceFlags::RANDOM | sampled) }
            }
        }
    }
}

impl SampleRatio {
    /// Every trace.
    pub const ALL: Self = Self { threshold: 0 };

    /// That share of all traces; `None` if it is not from 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        let rejected = (1.0 - share) * RANDOM_VALUES as f64;
        (0.0..=1.0).contains(&share).then(|| Self { threshold: rejected.round() as u64 })
    }

    /// Whether the trace is of that share. Whoever decides by the same rule decides the same, and a larger share holds all
    /// of a smaller one: OpenTelemetry's rule for consistent sampling, random value >= rejection threshold
    /// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>). The older one, which compares
    /// the last 63 bits, is of no use for ids that are UUIDs: two of those bits are the same in each.
    #[must_use]
    pub fn takes(self, trace_id: &TraceId) -> bool {
        trace_id.random() >= self.threshold
    }
}

fn is_id(text: &[u8]) -> bool {
    is_hex(text) && text.iter().any(|digit| *digit != b'0')
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The number that at most 16 hex digits write.
fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value << 4 | u64::from(hex_value(*digit)))
}

const fn hex_value(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a').wrapping_add(10) & 0xf }
}

const fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

impl<const DIGITS: usize> std::fmt::Debug for Id<DIGITS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(header: &str) -> Option<TraceParent> {
        TraceParent::parse(header.as_bytes())
    }

    fn request_id(text: &str) -> RequestId {
        RequestId::parse(text).unwrap()
    }

    #[test]
    fn a_valid_traceparent_is_read_in_all_its_parts() {
        let parent = parse(VALID).unwrap();
        assert_eq!(parent.trace_id.as_str(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id.as_str(), "b7ad6b7169203331");
        assert_eq!((parent.flags.bits(), parent.flags.is_sampled()), (1, true));
        assert_eq!(parent.span_id.to_bytes(), 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert_eq!(parent.trace_id.to_bytes()[..2], [0x0a, 0xf7]);
        assert_eq!(parent.to_header(), VALID.as_bytes());
    }

    #[test]
    fn of_a_version_to_come_the_known_part_is_read() {
        let known = &VALID[2..];
        for later in [format!("01{known}"), format!("cc{known}-what-the-future-will-be-like")] {
            assert_eq!(parse(&later), parse(VALID), "{later}");
        }
        assert_eq!(parse(&format!("cc{known}.what")), None);
    }

    #[test]
    fn what_is_no_traceparent_is_not_read() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0G-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0X",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_flags_are_cleared_and_the_known_two_kept() {
        for (sent, kept) in [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("fc", 0), ("ff", 3)] {
            let parent = parse(&format!("{}{sent}", &VALID[..53])).unwrap();
            assert_eq!(parent.flags.bits(), kept, "{sent}");
        }
    }

    #[test]
    fn the_gateways_own_ids_are_those_of_the_request_id() {
        let id = request_id("11111111-2222-4333-8444-555555555555");
        assert_eq!(id.trace_id().as_str(), "11111111222243338444555555555555");
        assert_eq!(id.span_id(0).as_str(), "8444555555555555");
        assert_eq!(id.span_id(1).as_str(), "227bcf0ed49fd16a");
        assert_eq!(RequestId::parse("00000000-0000-0000-0000-000000000000").map(|_| ()), None);
    }

    #[test]
    fn a_span_id_is_never_zero() {
        // The number before which one step makes zero.
        let before: u64 = 0u64.wrapping_sub(0x9E37_79B9_7F4A_7C15);
        let digits = format!("{before:016x}");
        let id = request_id(&format!("11111111-2222-4333-{}-{}", &digits[..4], &digits[4..]));
        assert_eq!(id.span_id(1).as_str(), "0000000000000001");
    }

    #[test]
    fn a_call_with_a_parent_stays_in_its_trace_and_another_begins_one() {
        let id = request_id("11111111-2222-4333-8444-555555555555");
        let tracing = |share| Tracing { ratio: SampleRatio::new(share).unwrap() };
        let parent = parse(VALID).unwrap();
        let on = tracing(0.0).span(Some(parent), &id, 2);
        assert_eq!((on.trace_id, on.flags, on.span_id), (parent.trace_id, parent.flags, id.span_id(2)));
        let begun = |share| {
            let span = tracing(share).span(None, &id, 0);
            assert_eq!((span.trace_id, span.span_id), (id.trace_id(), id.span_id(0)));
            span.flags.bits()
        };
        assert_eq!((begun(1.0), begun(0.0)), (3, 2));
    }

    #[test]
    fn a_share_is_by_the_random_part_alone() {
        let takes = |share: f64, random: u64| {
            let id = TraceId::parse(format!("ffffffffffffffffff{random:014x}").as_bytes()).unwrap();
            SampleRatio::new(share).unwrap().takes(&id)
        };
        let most = RANDOM_VALUES - 1;
        assert!(takes(1.0, 0) && takes(1.0, most) && !takes(0.0, most));
        let half = RANDOM_VALUES / 2;
        assert!(takes(0.5, half) && !takes(0.5, half - 1));
        assert_eq!(SampleRatio::new(1.0), Some(SampleRatio::ALL));
        for bad in [-0.1, 1.1, f64::NAN] {
            assert_eq!(SampleRatio::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn of_new_request_ids_about_the_share_is_taken() {
        let quarter = SampleRatio::new(0.25).unwrap();
        let taken = (0..10_000).filter(|_| quarter.takes(&RequestId::new().trace_id())).count();
        // Twelve standard deviations: chance does not decide.
        assert!((2_000..3_000).contains(&taken), "{taken}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_what_is_read_writes_itself(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            header in "(00|01|ff)-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3](-x)?",
        ) {
            let _ = TraceParent::parse(&bytes);
            if let Some(parent) = parse(&header) {
                let written = parent.to_header();
                prop_assert_eq!(&written[2..], &header.as_bytes()[2..TraceParent::LEN]);
                prop_assert_eq!(TraceParent::parse(&written), Some(parent));
            }
        }

        #[test]
        fn spans_of_a_call_have_valid_ids_each_its_own(bits in 1u128.., numbers in 1u32..100) {
            let id = request_id(&uuid::Uuid::from_u128(bits).hyphenated().to_string());
            let trace_id = id.trace_id();
            prop_assert_eq!(trace_id.to_bytes(), bits.to_be_bytes());
            prop_assert_eq!(TraceId::parse(trace_id.as_str().as_bytes()), Some(trace_id));
            let spans: Vec<_> = (0..=numbers).map(|number| id.span_id(number)).collect();
            for span in &spans {
                prop_assert_eq!(SpanId::parse(span.as_str().as_bytes()), Some(*span));
            }
            let different: std::collections::HashSet<_> = spans.iter().collect();
            prop_assert_eq!(different.len(), spans.len());
        }

        #[test]
        fn a_larger_share_holds_all_of_a_smaller_one(bits in 1u128.., one in 0.0..=1.0, other in 0.0..=1.0) {
            let id = request_id(&uuid::Uuid::from_u128(bits).hyphenated().to_string()).trace_id();
            let takes = |share: f64| SampleRatio::new(share).unwrap().takes(&id);
            let (less, more) = if one < other { (one, other) } else { (other, one) };
            prop_assert!(!takes(less) || takes(more));
        }
    }
}
