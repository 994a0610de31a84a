//! The process as the system sees it, under the names that every Prometheus client uses; read from `/proc` at a scrape.

use std::fs;

use prometheus::proto::MetricFamily;

use super::family::{self, Samples};

/// Ticks per second in `/proc/*/stat`: a constant of Linux's interface to programs (`USER_HZ`), whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

/// What can be read; nothing where there is no `/proc`.
pub(super) fn families() -> Vec<MetricFamily> {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let stat = stat.as_deref().and_then(Stat::parse);
    [
        (Samples::of_counter(family::PROCESS_CPU), stat.as_ref().map(|stat| stat.cpu_seconds)),
        (Samples::of_gauge(family::PROCESS_START), stat.as_ref().and_then(start_time)),
        (Samples::of_gauge(family::PROCESS_RSS), resident_bytes()),
        (Samples::of_gauge(family::PROCESS_FDS), open_fds()),
        (Samples::of_gauge(family::PROCESS_MAX_FDS), max_fds()),
    ]
    .into_iter()
    .filter_map(|(mut samples, value)| {
        samples.add(&[], value?);
        Some(samples.into_family())
    })
    .collect()
}

/// Of `/proc/self/stat`, see proc_pid_stat(5).
struct Stat {
    cpu_seconds: f64,
    /// From the start of the machine.
    started_seconds: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold anything; the third one follows.
        let (_, from_third) = text.rsplit_once(") ")?;
        let field = |number: usize| from_third.split(' ').nth(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            started_seconds: field(22)? / TICKS_PER_SECOND,
        })
    }
}

fn start_time(stat: &Stat) -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat.started_seconds)
}

fn resident_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = kibibytes.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_fds() -> Option<f64> {
    // One of them is the directory being read.
    let seen = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(seen.saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let limits = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match limits.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 12345 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.cpu_seconds, 2.0);
        assert_eq!(stat.started_seconds, 123.45);
    }
}
