//! Counters as a program's `/metrics` shows them.

use std::net::SocketAddr;

use anyhow::Result;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Samples(String);

impl Samples {
    /// What `/metrics` there says now.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn of(address: SocketAddr) -> Result<Self> {
        Ok(Self(crate::http::get(address, "/metrics")?))
    }

    /// From Prometheus' text.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The sum of all series of `name` that have these labels; 0 when there is none. Label values hold no commas here.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (family, found) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| {
                let wanted = format!("{label}=\"{value}\"");
                found.trim_end_matches('}').split(',').any(|pair| pair == wanted)
            };
            (family == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// Every copy has come to its end: eligible = sent + dropped, sent = answered + timed_out + failed.
    ///
    /// # Errors
    /// Not yet, with the counters.
    pub fn no_copy_in_flight(&self) -> Result<()> {
        crate::Shadows::of(self, &[]).settled()
    }

    /// The text, for whoever reads a failed test.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_their_labels() {
        let samples = Samples::from_text(
            "# TYPE a counter\na_total{x=\"1\",y=\"p\"} 2\na_total{x=\"1\",y=\"q\"} 3\na_total{x=\"2\"} 7\nb 1\n# EOF\n",
        );
        assert!((samples.sum("a_total", &[("x", "1")]) - 5.0).abs() < f64::EPSILON);
        assert!((samples.sum("a_total", &[("y", "q"), ("x", "1")]) - 3.0).abs() < f64::EPSILON);
        assert!((samples.sum("b", &[]) - 1.0).abs() < f64::EPSILON);
        assert!(samples.sum("c", &[]).abs() < f64::EPSILON);
    }
}
