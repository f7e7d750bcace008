//! What was measured, for people and for programs: the table, `bench.json`, the picture. Pure: text out.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

use crate::exact::Count;
use crate::harness::Shape;
use crate::isolation::{self, Case, Fared};
use crate::measured::Measured;
use crate::peers::{Kind, Mode};
use crate::ratio::Figure;
use crate::rounds::{Load, Measure, Subject};
use crate::rows::{ROWS, Row};

/// One entry of `bench.json`. Rows that are missing have none.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    row: u8,
    metric: Cow<'static, str>,
    value: f64,
    /// What `value` must not exceed; where nothing must hold, what we aim at.
    target: f64,
    peer: &'static str,
    low: f64,
    high: f64,
    aim: f64,
    /// Too few rounds were steady, or of row 10 alike: the figure proves nothing.
    noisy: bool,
}

fn peer(row: &Row) -> &'static str {
    match row.peer() {
        None | Some(Kind::Umbra | Kind::Pair) => "self",
        Some(Kind::Raw | Kind::RawPair) => "raw",
        Some(Kind::Envoy) => "envoy",
        Some(Kind::Nginx) => "nginx",
        Some(Kind::Haproxy) => "haproxy",
    }
}

/// The row whose figures are those of many cases.
const ISOLATION: u8 = 10;

/// What `bench.json` holds.
pub(crate) fn entries(measured: &Measured) -> Vec<Entry> {
    let entry = |row: &'static Row| {
        let Figure { value, low, high, .. } = measured.figure(row).ok()?;
        let noisy = measured.is_noisy(row);
        let (peer, target) = (peer(row), row.target());
        Some(Entry {
            row: row.number,
            metric: row.metric.into(),
            value,
            target,
            peer,
            low,
            high,
            aim: row.aim,
            noisy,
        })
    };
    let mut all = Vec::new();
    for (row, next) in ROWS.iter().zip(ROWS.iter().skip(1).map(Some).chain([None])) {
        all.extend(entry(row));
        if row.number == ISOLATION && next.is_none_or(|next| next.number != ISOLATION) {
            all.extend(cases(measured));
        }
    }
    all
}

/// Of each isolation case of ours.
fn cases(measured: &Measured) -> Vec<Entry> {
    let mut all = Vec::new();
    for ((case, kind), fared) in &measured.isolation {
        let (Ok(fared), Kind::Umbra) = (fared, kind) else { continue };
        let [p50, p99] = isolation::MOST;
        for (name, (measure, target), aim) in [("p50", p50, 1.02), ("p99", p99, 1.05)] {
            let Some(Figure { value, low, high, .. }) = fared.ratio(*kind, measure) else { continue };
            let metric = format!("isolation_{name}_{}", case.name()).into();
            let noisy = !fared.is_sound(*kind);
            all.push(Entry { row: ISOLATION, metric, value, target, peer: "self", low, high, aim, noisy });
        }
    }
    all
}

/// The table of ratios, and what they were made of.
pub(crate) fn table(measured: &Measured) -> String {
    let mut text =
        String::from("row  metric                          against   value   95 % interval   must    aim\n");
    for row in ROWS {
        let must = row.must.map_or("-".to_owned(), number);
        let start = format!("{:>3}  {:<30}  {:<8}", row.number, row.metric, peer(row));
        let _ = match measured.figure(row) {
            Ok(figure) => {
                let interval = format!("{} .. {}", number(figure.low), number(figure.high));
                let verdict =
                    if measured.is_noisy(row) { "noisy: proves nothing" } else { verdict(row, figure) };
                let value = number(figure.value);
                let aim = number(row.aim);
                writeln!(text, "{start} {value:>6}  {interval:>14}  {must:>5}  {aim:>5}  {verdict}")
            }
            Err(why) => {
                let aim = number(row.aim);
                writeln!(text, "{start} {:>6}  {:>14}  {must:>5}  {aim:>5}  {why}", "missing", "")
            }
        };
    }
    text + &costs(measured) + &isolation(measured) + &growth(measured) + &counts(measured)
}

fn verdict(row: &Row, figure: Figure) -> &'static str {
    if figure.value <= row.aim {
        "as aimed at"
    } else if row.must.is_none_or(|must| figure.value <= must) {
        if row.must.is_some() { "holds" } else { "above the aim" }
    } else {
        "MISSED"
    }
}

/// Three digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The medians that the ratios were made of: worth nothing on another machine, or on this one at another time.
fn costs(measured: &Measured) -> String {
    let small = Load::Closed(Shape::Small);
    let columns = [
        ("plain", Mode::Plain, small, Measure::Cpu),
        ("mirrored", Mode::Mirrored, small, Measure::Cpu),
        ("64 KiB", Mode::Plain, Load::Closed(Shape::Large), Measure::Cpu),
        ("32 streams", Mode::Plain, Load::Closed(Shape::ManyStreams), Measure::Cpu),
        ("1 stream", Mode::Plain, Load::Closed(Shape::OneStream), Measure::Cpu),
        ("p50", Mode::Plain, Load::Open, Measure::P50),
        ("p99", Mode::Plain, Load::Open, Measure::P99),
        ("mirrored p50", Mode::Mirrored, Load::Open, Measure::P50),
        ("mirrored p99", Mode::Mirrored, Load::Open, Measure::P99),
    ];
    let mut text = String::from(
        "\na request's CPU (user and kernel) and latency at half of Envoy's capacity, median of the rounds, us\n           ",
    );
    for (name, ..) in columns {
        let _ = write!(text, "{name:>13}");
    }
    text.push('\n');
    for kind in Kind::ALL {
        let _ = write!(text, "  {:<9}", kind.name());
        for (_, mode, load, measure) in columns {
            let values = measured.rounds.get(&load).map(|rounds| {
                rounds.values(|round| Some(round.mean(Subject { kind, mode }, measure)? / 1e3))
            });
            let figure = values.and_then(|values| Figure::of(&values));
            let cell = figure.map_or("-".to_owned(), |figure| format!("{:.1}", figure.value));
            let _ = write!(text, "{cell:>13}");
        }
        text.push('\n');
    }
    text
}

/// How users fare before each mirror, and how they would before it with another proxy.
fn isolation(measured: &Measured) -> String {
    if measured.isolation.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\nbefore a mirror, over the same without it: failed requests, p50, p99 (and that of the second visits without it over \
         the first)\n",
    );
    let ours = measured.isolation.iter().filter(|((_, kind), _)| *kind == Kind::Umbra);
    for ((case, _), fared) in ours {
        let mut line = isolated((*case, Kind::Umbra), fared);
        for kind in [Kind::Envoy, Kind::Nginx] {
            if let Some(fared) = measured.isolation.get(&(*case, kind)) {
                line += &format!(" | {}", fared_by(kind, fared));
            }
        }
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// One case of one program, on a line.
pub(crate) fn isolated((case, kind): (Case, Kind), fared: &Result<Fared, String>) -> String {
    format!("{:<24} {}", case.name(), fared_by(kind, fared))
}

fn fared_by(kind: Kind, fared: &Result<Fared, String>) -> String {
    let said = match fared {
        Err(why) => why.clone(),
        Ok(fared) => {
            let ratio = |measure| fared.ratio(kind, measure).map_or("void".to_owned(), |it| number(it.value));
            let noisy = match fared.failed_without {
                0 if fared.is_sound(kind) => String::new(),
                0 => " noisy".to_owned(),
                without => format!(" noisy: {without} failed without a mirror"),
            };
            let (p50, p99) = (ratio(Measure::P50), ratio(Measure::P99));
            let itself = fared
                .itself(kind, Measure::P99)
                .map_or(String::new(), |it| format!(" (without: {} .. {})", number(it.low), number(it.high)));
            let void = fared.rounds.void.first().map_or(String::new(), |(_, why)| format!(" void: {why}"));
            let rounds = fared.ratio(kind, Measure::P99).map_or(0, |it| it.rounds);
            let (failed, planned) = (fared.failed, fared.planned);
            format!("{failed} of {planned} failed, {p50}, {p99} in {rounds} rounds{itself}{noisy}{void}")
        }
    };
    format!("{} {said}", kind.name())
}

/// What mirrors that keep their copies cost.
fn growth(measured: &Measured) -> String {
    let mut text = String::new();
    for ((case, kind), growth) in &measured.growth {
        let said = match growth {
            Err(why) => format!("missing: {why}"),
            Ok(it) => format!(
                "{:.1} MB and {} descriptors, at most {:.1} MB and {} after; {} of {} requests failed",
                it.resident.0 as f64 / 1e6,
                it.descriptors.0,
                it.resident.1 as f64 / 1e6,
                it.descriptors.1,
                it.failed,
                it.planned
            ),
        };
        let _ = writeln!(text, "  {} before a mirror that {}: {said}", kind.name(), case.name());
    }
    text
}

/// What hardly depends on how busy the machine was.
fn counts(measured: &Measured) -> String {
    let mut text = String::new();
    for (kind, bytes) in &measured.idle {
        let each = measured.idle_connection.get(kind).map_or("-".to_owned(), |each| format!("{each:.0}"));
        let megabytes = *bytes as f64 / 1e6;
        let _ = writeln!(
            text,
            "  {} resident before the first request: {megabytes:.1} MB; bytes for each idle connection: {each}",
            kind.name()
        );
    }
    for ((count, kind, mode), values) in &measured.exact {
        let mode = mode.name();
        let said = match values.as_deref() {
            Ok(values) => values.iter().map(|value| exactly(*count, *value)).collect::<Vec<_>>().join(", "),
            Err(why) => format!("missing: {why}"),
        };
        let _ = writeln!(text, "  {} {} {mode}: {said}", kind.name(), count.name());
    }
    text
}

fn exactly(count: Count, value: f64) -> String {
    if count == Count::Instructions { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The ratios as bars beside what must hold, as SVG.
pub(crate) fn picture(measured: &Measured) -> String {
    const LINE: usize = 26;
    const LEFT: f64 = 250.0;
    const UNIT: f64 = 260.0;
    const WIDTH: usize = 900;
    let shown: Vec<(&Row, Figure)> =
        ROWS.iter().filter_map(|row| Some((row, measured.figure(row).ok()?))).collect();
    let height = (shown.len() + 2) * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"8\" y=\"18\" \
         font-weight=\"bold\">umbra-proxy over its peers: a bar should end at the mark, its target, or before</text>\n"
    );
    for (line, (row, figure)) in shown.iter().enumerate() {
        let y = (line + 1) * LINE + 8;
        // The target's mark is at the same place in every line: bars of different units are comparable so.
        // Where nothing is allowed, anything is too much.
        let of_target = |value: f64| if value <= 0.0 { 0.0 } else { value / row.target() };
        let scaled = |value: f64| LEFT + of_target(value).min(2.0) * UNIT;
        let colour = if figure.value <= row.target() { "#4a8f5b" } else { "#c0504d" };
        let (end, low, high) = (scaled(figure.value), scaled(figure.low), scaled(figure.high));
        let middle = y + 8;
        let _ = write!(
            svg,
            "<text x=\"8\" y=\"{text}\">{number} {metric}</text>\n<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"16\" fill=\"{colour}\"/>\n<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle}\" y2=\"{middle}\" \
             stroke=\"black\"/>\n<line x1=\"{mark}\" x2=\"{mark}\" y1=\"{above}\" y2=\"{below}\" stroke=\"black\" \
             stroke-width=\"2\"/>\n<text x=\"{label:.1}\" y=\"{text}\">{value} of {target}</text>\n",
            text = y + 12,
            number = row.number,
            metric = row.metric,
            width = end - LEFT,
            mark = LEFT + UNIT,
            above = y.saturating_sub(3),
            below = y + 19,
            label = high.max(LEFT + UNIT) + 8.0,
            value = self::number(figure.value),
            target = self::number(row.target()),
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rounds::Rounds;
    use crate::rounds::tests::round;

    fn measured() -> Measured {
        let visits = |cost: f64| [cost, cost];
        let one = |kind, cost: f64| (kind, Mode::Plain, visits(cost));
        let all =
            [one(Kind::Umbra, 12.0), one(Kind::Raw, 10.0), one(Kind::Envoy, 36.0), one(Kind::Nginx, 10.0)];
        let round = round(&all.each_ref().map(|(kind, mode, visits)| (*kind, *mode, visits.as_slice())));
        let rounds = Rounds { all: vec![round.clone(), round.clone(), round], void: vec![] };
        Measured { rounds: BTreeMap::from([(Load::Closed(Shape::Small), rounds)]), ..Measured::default() }
    }

    #[test]
    fn entries_are_what_was_measured_and_nothing_else() {
        let json = serde_json::to_value(entries(&measured())).unwrap();
        let all = json.as_array().unwrap();
        let metrics: Vec<_> = all.iter().map(|entry| entry["metric"].as_str().unwrap()).collect();
        assert_eq!(metrics, ["cpu_vs_envoy", "cpu_vs_nginx", "cpu_vs_raw"]);
        let first = &all[0];
        assert_eq!((&first["row"], &first["peer"]), (&1.into(), &"envoy".into()));
        assert!((first["value"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(first["target"].as_f64(), Some(0.4), "what must hold");
        assert_eq!(all[2]["target"].as_f64(), Some(1.15), "nothing must hold: the aim");
        assert_eq!(first["noisy"], false);
    }

    #[test]
    fn the_table_says_what_holds_what_does_not_and_what_is_missing() {
        let table = table(&measured());
        let line = |metric: &str| table.lines().find(|line| line.contains(metric)).unwrap();
        assert!(line("cpu_vs_envoy").contains("0.333") && line("cpu_vs_envoy").ends_with("holds"));
        assert!(line("cpu_vs_nginx").ends_with("MISSED"));
        assert!(line("cpu_vs_raw").contains("1.200") && line("cpu_vs_raw").ends_with("above the aim"));
        assert!(
            line("cpu_vs_haproxy").contains("missing") && line("cpu_vs_haproxy").ends_with("no round counts")
        );
        for row in ROWS {
            line(row.metric);
        }
    }

    #[test]
    fn figures_of_too_few_steady_rounds_are_called_noisy() {
        let mut measured = measured();
        let rounds = measured.rounds.get_mut(&Load::Closed(Shape::Small)).unwrap();
        rounds.all.truncate(2);
        assert!(entries(&measured).iter().all(|entry| entry.noisy));
        assert!(table(&measured).contains("noisy: proves nothing"));
    }

    #[test]
    fn the_picture_has_a_bar_for_each_figure() {
        let svg = picture(&measured());
        assert_eq!(svg.matches("height=\"16\"").count(), entries(&measured()).len());
    }
}
