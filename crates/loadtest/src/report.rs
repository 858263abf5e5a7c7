//! Results for people and for programs: the table and the JSON, and the only place that writes to the standard
//! streams. What the numbers mean is in `figure.rs`, how rounds are summed up in `statistics.rs`.

use crate::broker_process::BrokerOptions;
use crate::failure::{Context, Failure};
use crate::figure::Outcome;
use crate::numbers::text;
use crate::scenario::Settings;
use crate::statistics::{Spread, ratio};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Everything one command found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Of this program.
    version: &'static str,
    cpus: usize,
    /// Release of the kernel, its first two numbers: more tells of the host.
    kernel: String,
    /// What brokers were started with, if this program started them.
    pub(crate) options: Option<BrokerOptions>,
    pub(crate) brokers: Vec<BrokerReport>,
    not_compared: Vec<String>,
    pub(crate) loads: Vec<LoadReport>,
}

/// One broker that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct BrokerReport {
    pub(crate) label: String,
    pub(crate) path: String,
    /// As it states.
    pub(crate) version: Option<String>,
    /// What it was told beyond where to listen.
    pub(crate) settings: String,
}

/// One load, with all its rounds.
#[derive(Debug, Serialize)]
pub(crate) struct LoadReport {
    pub(crate) title: String,
    settings: Settings,
    /// Brokers it says nothing about, and why.
    pub(crate) not_applicable: Vec<String>,
    pub(crate) brokers: Vec<Rounds>,
}

/// All rounds of one broker under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Rounds {
    pub(crate) label: String,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Rounds {
    /// The spread of the figure `name`; `None` if no round has it.
    fn spread(&self, name: &str) -> Option<Spread> {
        let figures = self.outcomes.iter().flat_map(|outcome| &outcome.figures);
        let values = figures.filter(|figure| figure.name == name).map(|figure| figure.value);
        Spread::of(&values.collect::<Vec<_>>())
    }
}

impl LoadReport {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { title: settings.title(), settings, not_applicable: Vec::new(), brokers: Vec::new() }
    }

    /// Names and units of all figures, in the order of their first appearance.
    fn figures(&self) -> Vec<(&str, &str)> {
        let mut names = Vec::new();
        let outcomes = self.brokers.iter().flat_map(|rounds| &rounds.outcomes);
        for figure in outcomes.flat_map(|outcome| &outcome.figures) {
            let name = (&*figure.name, figure.unit);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// What went wrong, each with its broker and round.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for rounds in &self.brokers {
            for (round, outcome) in (1..).zip(&rounds.outcomes) {
                let of = |problem| format!("{}, round {round}: {problem}", rounds.label);
                problems.extend(outcome.problems.iter().map(of));
            }
        }
        problems
    }

    /// What `label` is put in relation to: the first contestant on the same transport, unless it is that itself.
    fn ours_like(&self, label: &str) -> Option<&Rounds> {
        let transport = |label: &str| label.rsplit_once(' ').map(|(_, transport)| transport.to_owned());
        let first = self.brokers.iter().find(|rounds| transport(&rounds.label) == transport(label))?;
        (first.label != label).then_some(first)
    }

    /// The load as a table, one line for each figure and broker.
    fn table(&self) -> String {
        let mut rows =
            vec![["figure", "unit", "broker", "min", "median", "max", "ours/it"].map(str::to_owned)];
        for (name, unit) in self.figures() {
            for (index, rounds) in self.brokers.iter().enumerate() {
                let Some(spread) = rounds.spread(name) else { continue };
                let ours = self.ours_like(&rounds.label).and_then(|ours| ours.spread(name));
                let ratio = ours.and_then(|ours| ratio(ours.median, spread.median));
                let first = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
                rows.push([
                    first(name),
                    first(unit),
                    rounds.label.clone(),
                    text(spread.min),
                    text(spread.median),
                    text(spread.max),
                    ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
                ]);
            }
        }
        let mut out = format!("\n{}\n", self.title);
        lay_out(&rows, 3, &mut out);
        for reason in &self.not_applicable {
            let _ = writeln!(out, "  without {reason}");
        }
        for problem in self.problems() {
            let _ = writeln!(out, "  PROBLEM {problem}");
        }
        out
    }
}

/// Columns as wide as their widest cell; the first `left` are set to the left, the others to the right.
fn lay_out<const N: usize>(rows: &[[String; N]], left: usize, out: &mut String) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a string does not fail.
            let _ = if index < left {
                write!(line, "  {cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

impl Report {
    pub(crate) fn new(not_compared: Vec<String>) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            kernel: kernel.trim().splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
            options: None,
            brokers: Vec::new(),
            not_compared,
            loads: Vec::new(),
        }
    }

    /// True if a round failed or lost a frame.
    pub(crate) fn has_problems(&self) -> bool {
        self.loads.iter().any(|load| !load.problems().is_empty())
    }

    fn table(&self) -> String {
        let mut out = format!("elbus-loadtest {}, {} CPUs, Linux {}\n", self.version, self.cpus, self.kernel);
        for broker in &self.brokers {
            let version = broker.version.as_deref().unwrap_or("version unknown");
            let BrokerReport { label, path, settings, .. } = broker;
            let _ = writeln!(out, "{label}: {version}, {path}, {settings}");
        }
        for missing in &self.not_compared {
            let _ = writeln!(out, "{missing}");
        }
        for load in &self.loads {
            out += &load.table();
        }
        out
    }

    /// Writes the table to standard output, or JSON to `json` (`-` is standard output instead of the table).
    pub(crate) fn write(&self, json: Option<&Path>) -> Result<(), Failure> {
        let as_json = || serde_json::to_string_pretty(self).context(|| "JSON");
        match json {
            Some(path) if path == Path::new("-") => say(&as_json()?),
            Some(path) => {
                fs::write(path, as_json()? + "\n").context(|| path.display().to_string())?;
                say(self.table().trim_end())
            }
            None => say(self.table().trim_end()),
        }
    }
}

/// Writes lines to standard output.
pub(crate) fn say(lines: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{lines}").and_then(|()| out.flush()).context(|| "standard output")
}

/// Writes a line to standard error; a closed one is no reason to stop.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Better, Figure};
    use crate::scenario::Scenario;

    fn rounds(label: &str, values: &[f64]) -> Rounds {
        let outcome = |value: &f64| Outcome {
            figures: vec![Figure::new("deliveries", "1/s", *value, Better::Higher)],
            ..Outcome::default()
        };
        Rounds { label: label.to_owned(), outcomes: values.iter().map(outcome).collect() }
    }

    fn load() -> LoadReport {
        let mut load = LoadReport::new(Settings::of(Scenario::Message));
        load.brokers = vec![rounds("ours unix", &[3.0, 1.0, 2.0]), rounds("busrtd unix", &[5.0, 4.0, 9.0])];
        load
    }

    #[test]
    fn the_table_shows_spreads_and_the_ratio_of_the_medians() {
        let table = load().table();
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(lines[2], ["figure", "unit", "broker", "min", "median", "max", "ours/it"]);
        assert_eq!(lines[3], ["deliveries", "1/s", "ours", "unix", "1.000", "2.000", "3.000"]);
        assert_eq!(lines[4], ["busrtd", "unix", "4.000", "5.000", "9.000", "0.400"]);
    }

    #[test]
    fn a_failed_round_is_named_and_leaves_the_others_standing() {
        let mut load = load();
        load.brokers[1].outcomes[1] = Outcome::failed(&Failure::new("gone"));
        assert_eq!(load.problems(), ["busrtd unix, round 2: gone"]);
        let table = load.table();
        assert!(table.contains("PROBLEM busrtd unix, round 2: gone"), "{table}");
        assert!(table.contains("7.000"), "{table}");
        let mut report = Report::new(Vec::new());
        assert!(!report.has_problems());
        report.loads.push(load);
        assert!(report.has_problems());
    }

    #[test]
    fn json_holds_every_round() {
        let mut report = Report::new(vec!["x is not compared".to_owned()]);
        report.loads.push(load());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["loads"][0]["brokers"][1]["outcomes"][2]["figures"][0]["value"], 9.0);
        assert_eq!(json["loads"][0]["settings"]["scenario"], "message");
        assert_eq!(json["not_compared"][0], "x is not compared");
    }
}
