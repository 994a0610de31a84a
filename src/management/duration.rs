//! ISO 8601 durations as Azure writes its waits: `PT5S`, `PT0.7S`, `PT1M30S`, `P1D`.

/// Milliseconds of `text`; `None` if it is no duration of weeks, days, hours, minutes and seconds.
///
/// Years and months have no length of their own. A fraction is taken to the millisecond, in seconds only.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_prefix('P')?;
    let (date, time) = match text.split_once('T') {
        Some((date, time)) if !time.is_empty() => (date, time),
        Some(_) => return None,
        None if text.is_empty() => return None,
        None => (text, ""),
    };
    sum(date, &[('W', 7 * 86_400_000), ('D', 86_400_000)])?
        .checked_add(sum(time, &[('H', 3_600_000), ('M', 60_000), ('S', 1_000)])?)
}

/// `milliseconds` in seconds, which every reader of the format understands.
pub fn format(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
    if rest == 0 {
        return format!("PT{seconds}S");
    }
    format!("PT{seconds}.{}S", format!("{rest:03}").trim_end_matches('0'))
}

/// Adds up numbers that are each followed by one of `units`, in the order of the units, each at most once.
fn sum(mut text: &str, units: &[(char, u64)]) -> Option<u64> {
    let mut total: u64 = 0;
    for (unit, length) in units {
        let Some((number, rest)) = text.split_once(*unit) else { continue };
        total = total.checked_add(product(number, *length)?)?;
        text = rest;
    }
    text.is_empty().then_some(total)
}

/// `number` times `length` milliseconds; only seconds have a fraction.
fn product(number: &str, length: u64) -> Option<u64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = match number.split_once(['.', ',']) {
        Some((whole, fraction)) if length == 1_000 && digits(fraction) => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    if !digits(whole) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u64>().ok()?.checked_mul(length)?.checked_add(thousandths.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sdk_sends_is_read() {
        for (text, milliseconds) in [
            ("PT5S", 5_000),
            ("PT0.7S", 700),
            ("PT0S", 0),
            ("PT1M30S", 90_000),
            ("PT1H", 3_600_000),
            ("P1DT0.001S", 86_400_001),
            ("P2W", 2 * 7 * 86_400_000),
            ("PT0.5000009S", 500),
        ] {
            assert_eq!(parse(text), Some(milliseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "P",
            "PT",
            "5",
            "5S",
            "PT5",
            "PTS",
            "P1M",
            "P1Y",
            "PT-5S",
            "PT+5S",
            "PT1.5M",
            "PT5S5S",
            "PT5S1M",
            "PT .5S",
            "PT.5S",
            "PT5.S",
            "PT99999999999999999999S",
            "P213503982335DT0S",
            "pt5s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for milliseconds in [0, 1, 50, 500, 700, 1_000, 5_000, 90_000, 86_400_001] {
            assert_eq!(parse(&format(milliseconds)), Some(milliseconds));
        }
        assert_eq!(format(700), "PT0.7S");
    }
}
