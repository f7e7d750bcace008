//! The Prometheus text format, as much of it as counters need.

use std::collections::BTreeMap;

/// One line: name, labels, value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

impl Sample {
    /// A label's value, empty when it is not there (Prometheus makes no difference).
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All samples; comments and what cannot be read are left out, and then missing in the sums.
pub(super) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (series, rest) = match line.find('{') {
        Some(open) => {
            let (labels, rest) = labels(&line[open + 1..])?;
            ((&line[..open], labels), rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            ((name, BTreeMap::new()), rest)
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: series.0.to_owned(), labels: series.1, value })
}

/// Labels up to the closing brace, and what follows it. Values may hold braces, commas and escaped quotes.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.insert(name.to_owned(), value);
        text = rest;
    }
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_with_and_without_labels() {
        let samples = parse(
            "# HELP a_total x\na_total{b=\"c\",d=\"e{f}, \\\"g\\\"\\n\"} 3\nplain 1.5 1700000000\n# EOF\nnonsense\n",
        );
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].name.as_str(), samples[0].value), ("a_total", 3.0));
        assert_eq!((samples[0].label("b"), samples[0].label("d")), ("c", "e{f}, \"g\"\n"));
        assert_eq!((samples[1].name.as_str(), samples[1].value, samples[1].label("b")), ("plain", 1.5, ""));
    }

    #[test]
    fn a_cut_line_is_left_out() {
        assert!(parse("a_total{b=\"c").is_empty());
        assert!(parse("a_total{b=\"c\"}").is_empty());
    }
}
