//! `compare`: starts each broker afresh for each measurement, in turns, so that whatever else the machine does
//! meets all of them. Who takes part is in `contestants.rs`, starting and stopping in `broker_process.rs`, the
//! table in `report.rs`.

use crate::args::CompareArgs;
use crate::broker_info;
use crate::broker_process::{BrokerOptions, BrokerProcess, Program, Transport};
use crate::contestants::{Contestant, Field};
use crate::failure::{Context, Failure};
use crate::figure::Outcome;
use crate::load::execute;
use crate::report::{BrokerReport, LoadReport, Report, Rounds, note};
use crate::scenario::{Scenario, Settings};
use crate::suite::{Planned, Suite};
use std::collections::BTreeMap;

/// One load with those who take part in it.
#[derive(Debug)]
struct Turn {
    settings: Settings,
    contestants: Vec<Contestant>,
    options: BrokerOptions,
    rounds: u32,
    report: LoadReport,
}

/// Measures every load with every broker.
pub(crate) fn run(args: &CompareArgs) -> Result<Report, Failure> {
    let options = BrokerOptions { workers: args.workers, timeout: args.timeout, queue_size: args.queue_size };
    let suite = args.suite.as_deref().map(Suite::read).transpose()?;
    let none = BTreeMap::new();
    let variants = suite.as_ref().map_or(&none, |suite| &suite.variants);
    let field = Field::find(args.elbusd.clone(), &args.elbusd_arg, variants)?;
    let transports = if suite.is_some() { Transport::ALL.to_vec() } else { args.transports() };
    let mut turns = if let Some(suite) = suite {
        let turns = suite.loads.into_iter().map(|load| planned(load, &field, options, args.rounds));
        turns.collect::<Vec<_>>()
    } else {
        asked_for(args, &field, options)?
    };
    let loads = turns.iter().map(|turn| &turn.settings).collect::<Vec<_>>();
    let missing = field.missing(&loads, &transports);
    let mut report = Report::new(missing);
    report.options = Some(options);
    for contestant in once_each(&turns) {
        report.brokers.push(describe(contestant, options)?);
    }
    for round in 1..=args.rounds {
        for turn in turns.iter_mut().filter(|turn| round <= turn.rounds) {
            turn.take(round);
        }
    }
    report.loads = turns.into_iter().map(|turn| turn.report).collect();
    Ok(report)
}

/// The loads of the command line, each with everybody who can.
fn asked_for(args: &CompareArgs, field: &Field, options: BrokerOptions) -> Result<Vec<Turn>, Failure> {
    let loads = args.load.loads(&args.scenarios)?;
    let turns = loads.into_iter().map(|settings| {
        let relay = args.relay || settings.scenario == Scenario::Relay;
        let (contestants, unable) = field.taking_part(&settings, &args.transports(), relay);
        let report = LoadReport::new(settings.clone());
        Turn::new(settings, contestants, unable, (options, args.rounds), report)
    });
    Ok(turns.collect())
}

/// A load of a suite, with those of its contestants who are there and can.
fn planned(load: Planned, field: &Field, options: BrokerOptions, rounds: u32) -> Turn {
    let Planned { title, settings, contestants, rounds: most, queue_size } = load;
    let found = contestants.iter().filter_map(|label| field.contestant(label));
    let (mut able, mut unable) = (Vec::new(), Vec::new());
    for contestant in found {
        match contestant.cannot(&settings) {
            None => able.push(contestant),
            Some(reason) => unable.push(reason),
        }
    }
    let options = BrokerOptions { queue_size: queue_size.unwrap_or(options.queue_size), ..options };
    let rounds = most.map_or(rounds, |most| most.min(rounds));
    let mut report = LoadReport::new(settings.clone());
    report.title = title;
    Turn::new(settings, able, unable, (options, rounds), report)
}

impl Turn {
    fn new(
        settings: Settings,
        contestants: Vec<Contestant>,
        unable: Vec<String>,
        (options, rounds): (BrokerOptions, u32),
        mut report: LoadReport,
    ) -> Self {
        report.not_applicable = unable;
        let of = |contestant: &Contestant| Rounds { label: contestant.label(), outcomes: Vec::new() };
        report.brokers = contestants.iter().map(of).collect();
        Self { settings, contestants, options, rounds, report }
    }

    /// Measures everybody once.
    fn take(&mut self, round: u32) {
        for (contestant, rounds_of) in self.contestants.iter().zip(&mut self.report.brokers) {
            let label = &rounds_of.label;
            note(&format!("round {round} of {}: {}, {label}", self.rounds, self.report.title));
            let raw = matches!(contestant.program, Program::Relay);
            let settings = Settings { raw, ..self.settings.clone() };
            let broker = BrokerProcess::start(&contestant.program, self.options, contestant.transport);
            // A broker that fails under load is a result too; the others go on.
            let outcome = broker.and_then(|broker| execute(&broker.target(), &settings));
            rounds_of.outcomes.push(outcome.unwrap_or_else(|failure| Outcome::failed(&failure)));
        }
    }
}

/// Every program that takes part in anything, once.
fn once_each(turns: &[Turn]) -> Vec<&Contestant> {
    let mut found = Vec::<&Contestant>::new();
    for contestant in turns.iter().flat_map(|turn| &turn.contestants) {
        let is_relay = matches!(contestant.program, Program::Relay);
        if !is_relay && found.iter().all(|other| other.name != contestant.name) {
            found.push(contestant);
        }
    }
    found
}

/// Starts a broker once, to see that it starts and what version it states.
fn describe(contestant: &Contestant, options: BrokerOptions) -> Result<BrokerReport, Failure> {
    let Contestant { name, transport, program } = contestant;
    let broker = BrokerProcess::start(program, options, *transport).context(|| name)?;
    let (path, version) = match program {
        // A broker without the core RPC client is compared all the same.
        Program::Broker { path, .. } => (path, broker_info::version(&broker.target()).unwrap_or_default()),
        Program::Foreign { path, dialect } => (path, broker_info::printed_version(path, *dialect)),
        Program::Relay => return Err(Failure::new("the relay is no broker")),
    };
    let settings = match program {
        Program::Foreign { dialect, .. } => dialect.settings().to_owned(),
        Program::Broker { extra, .. } => {
            let words = options.arguments(extra);
            words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        }
        Program::Relay => String::new(),
    };
    Ok(BrokerReport { label: name.clone(), path: path.display().to_string(), version, settings })
}
