//! In which format the page is wanted: what a scraper's `Accept` says (RFC 9110, section 12.5.1).

/// A format of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4: for whoever does not ask for the other one.
    #[default]
    Text,
    /// The OpenMetrics text format 1.0.0, with exemplars.
    OpenMetrics,
}

impl Format {
    /// What the values of a request's `Accept` headers like better; text if they like both the same, or neither.
    #[must_use]
    pub fn accepted<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut text, mut open) = (0.0, 0.0);
        for range in values.into_iter().flat_map(|value| value.split(',')) {
            let range = Range::parse(range);
            let liking = match (range.kind.as_str(), range.version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => &mut open,
                ("text/plain", _) => &mut text,
                _ => continue,
            };
            *liking = range.quality.max(*liking);
        }
        if open > text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One media range. What it says in quotes is in no format that we have.
struct Range<'a> {
    kind: String,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Self { kind, version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.trim()),
                // A quality that is none is nobody's wish.
                "q" => range.quality = value.trim().parse().unwrap_or(0.0),
                _ => {}
            }
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_like_it_better() {
        let of = |accept: &[&str]| Format::accepted(accept.iter().copied());
        for (accept, expected) in [
            // Prometheus 2 and 3, as they send it.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;q=0.2", Format::Text),
            ("Application/OpenMetrics-Text ; Version=1.0.0 ; Q=0.9", Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/json", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(of(&[accept]), expected, "{accept}");
        }
        assert_eq!(of(&[]), Format::Text);
        assert_eq!(of(&["text/plain;q=0.5", "application/openmetrics-text"]), Format::OpenMetrics);
    }
}
