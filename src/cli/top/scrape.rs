//! One page of metrics in the Prometheus text format 0.0.4, to be asked by name and label.

use std::collections::BTreeMap;

/// All samples of a page.
#[derive(Debug, Default)]
pub(in crate::cli) struct Scrape {
    by_name: BTreeMap<String, Vec<Sample>>,
}

/// One sample.
#[derive(Debug, PartialEq)]
pub(in crate::cli) struct Sample {
    labels: Vec<(String, String)>,
    pub value: f64,
}

impl Scrape {
    /// Reads a page; what is no sample is passed over.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = parse_line(line) {
                scrape.by_name.entry(name.to_owned()).or_default().push(sample);
            }
        }
        scrape
    }

    /// The samples of that name.
    pub fn samples(&self, name: &str) -> &[Sample] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The sum of those samples that have all of `labels`; `None`: there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fitting = self.samples(name).iter().filter(|sample| sample.has(labels));
        fitting.map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

impl Sample {
    /// The value of a label; empty: it has none.
    pub fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == *value)
    }
}

fn parse_line(line: &str) -> Option<(&str, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, Sample { labels, value }))
}

/// Labels up to the closing brace, and what follows that.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = quoted.char_indices();
        let end = loop {
            match letters.next()? {
                (place, '"') => break place,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, letter) => value.push(letter),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let page = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}\\\\\"} 2\na{x=\"2\",y=\"\"} 3.5\nb 7\nbad{x=\"\nc{} NaN\n";
        let scrape = Scrape::parse(page);
        assert_eq!(scrape.sum("a", &[]), Some(5.5));
        assert_eq!(scrape.sum("a", &[("x", "1")]), Some(2.0));
        assert_eq!(scrape.sum("a", &[("x", "3")]), None);
        assert_eq!(scrape.samples("a")[0].label("y"), "q\"}\\");
        assert_eq!(scrape.sum("b", &[]), Some(7.0));
        assert!(scrape.samples("bad").is_empty());
    }

    #[test]
    fn what_the_gateway_itself_gives_out_is_read() {
        let metrics = crate::telemetry::Metrics::new();
        let scrape = Scrape::parse(&metrics.render());
        assert_eq!(scrape.sum("scoregate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
        assert_eq!(scrape.sum("scoregate_records_accepted_total", &[]), Some(0.0));
    }
}
