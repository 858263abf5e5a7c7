//! A suite of loads for `compare`, from a file in JSON. Each load has the options of the command line; what is made
//! of the figures is the business of who wrote the file.

use crate::args::SuiteLoad;
use crate::failure::{Context, Failure};
use crate::scenario::Settings;
use clap::Parser;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    loads: Vec<Entry>,
    /// Names for our broker with further arguments.
    #[serde(default)]
    variants: BTreeMap<String, Vec<String>>,
}

/// One load in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Title in the results.
    load: String,
    /// Kind of load and options, as on the command line.
    arguments: Vec<String>,
    /// Labels of those who take part: `ours unix`, `nats tcp`.
    contestants: Vec<String>,
    /// Rounds, where they are to be fewer.
    rounds: Option<u32>,
    /// Frames in each client's queue of each broker, where that is to be another number.
    queue_size: Option<u32>,
}

/// A load of a suite.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) title: String,
    pub(crate) settings: Settings,
    pub(crate) contestants: Vec<String>,
    pub(crate) rounds: Option<u32>,
    pub(crate) queue_size: Option<u32>,
}

/// A suite.
#[derive(Debug, Default)]
pub(crate) struct Suite {
    pub(crate) loads: Vec<Planned>,
    pub(crate) variants: BTreeMap<String, Vec<OsString>>,
}

impl Suite {
    /// Reads the suite in `file`.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file).context(|| file.display().to_string())?;
        Self::parse(&text).context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let File { loads, variants } = serde_json::from_str(text).context(|| "JSON")?;
        let loads = loads.into_iter().map(|entry| {
            let Entry { load, arguments, contestants, rounds, queue_size } = entry;
            let parsed = SuiteLoad::try_parse_from(&arguments).context(|| &load)?;
            let settings = parsed.load.settings(parsed.scenario).context(|| &load)?;
            Ok(Planned { title: load, settings, contestants, rounds, queue_size })
        });
        let loads = loads.collect::<Result<Vec<_>, Failure>>()?;
        let of_system = |words: Vec<String>| words.into_iter().map(OsString::from).collect();
        let variants = variants.into_iter().map(|(name, words)| (name, of_system(words))).collect();
        Ok(Self { loads, variants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn loads_have_the_options_of_the_command_line() {
        let suite = Suite::parse(
            r#"{ "variants": { "busy": ["--busy-poll=50"] }, "loads": [
                { "load": "S6", "arguments": ["acked", "--in-flight", "64"], "contestants": ["ours unix"],
                  "queue_size": 9 } ] }"#,
        )
        .unwrap();
        let load = &suite.loads[0];
        assert_eq!((load.settings.scenario, load.settings.in_flight), (Scenario::Acked, 64));
        assert_eq!((&*load.title, load.queue_size, load.rounds), ("S6", Some(9), None));
        assert_eq!(suite.variants["busy"], ["--busy-poll=50"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("{", "JSON"),
            (r#"{ "loads": [], "more": 1 }"#, "more"),
            (r#"{ "loads": [{ "load": "S1", "arguments": ["x"], "contestants": [] }] }"#, "S1"),
            (
                r#"{ "loads": [{ "load": "S1", "arguments": ["message", "--payload", "1"], "contestants": [] }] }"#,
                "S1",
            ),
        ] {
            let failure = Suite::parse(text).unwrap_err().to_string();
            assert!(failure.contains(named), "{failure}");
        }
    }
}
