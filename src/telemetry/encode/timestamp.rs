//! Points in time as RFC 3339 in UTC with microseconds.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-24T10:28:52`
type Second = [u8; 19];

thread_local! {
    /// The last second written and its text: calls of one second share it.
    static LAST: Cell<(u64, Second)> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Appends `at` as `2026-11-24T10:28:52.123456Z`. A clock before 1970 or past 9999 reads as 1970: the record matters more.
pub(in crate::telemetry) fn write(at: SystemTime, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (mut second, mut text) = LAST.get();
    if second != since.as_secs() {
        second = since.as_secs();
        text = format(second);
        LAST.set((second, text));
    }
    let [a, b, c, d, e, f] = six_digits(since.subsec_micros());
    out.extend_from_slice(&text);
    out.extend_from_slice(&[b'.', a, b, c, d, e, f, b'Z']);
}

/// `number`, below one million, in six digits.
pub(super) fn six_digits(number: u32) -> [u8; 6] {
    let digit = |place: u32| b'0' + (number / place % 10) as u8;
    [digit(100_000), digit(10_000), digit(1_000), digit(100), digit(10), digit(1)]
}

fn format(second: u64) -> Second {
    let at = i64::try_from(second)
        .ok()
        .and_then(|second| time::OffsetDateTime::from_unix_timestamp(second).ok())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |end: usize, number: u32| {
        let digits = six_digits(number);
        let width = if end == 4 { 4 } else { 2 };
        text[end - width..end].copy_from_slice(&digits[6 - width..]);
    };
    put(4, at.year().unsigned_abs());
    put(7, u32::from(u8::from(at.month())));
    put(10, u32::from(at.day()));
    put(13, u32::from(at.hour()));
    put(16, u32::from(at.minute()));
    put(19, u32::from(at.second()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    fn text(at: SystemTime) -> String {
        let mut out = Vec::new();
        write(at, &mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn any_time_reads_back_to_the_microsecond(secs in 0u64..253_402_300_799, micros in 0u32..1_000_000) {
            let at = UNIX_EPOCH + Duration::new(secs, micros * 1000 + 999);
            let read = time::OffsetDateTime::parse(&text(at), &Rfc3339).unwrap();
            prop_assert_eq!(read.unix_timestamp() as u64, secs);
            prop_assert_eq!(read.microsecond(), micros);
            prop_assert_eq!(text(at).len(), 27);
        }
    }

    #[test]
    fn a_clock_gone_wild_still_gives_a_time() {
        assert_eq!(text(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000000Z");
        let far = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert_eq!(text(far), "1970-01-01T00:00:00.000000Z");
    }
}
