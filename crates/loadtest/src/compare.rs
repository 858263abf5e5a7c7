//! `compare`: starts each broker afresh for each measurement, in turns, so that whatever else the machine does
//! meets all of them. Starting and stopping is in `broker_process.rs`, the table in `report.rs`.

use crate::args::CompareArgs;
use crate::broker_info;
use crate::broker_process::{BrokerOptions, BrokerProcess, Program};
use crate::failure::{Context, Failure};
use crate::figure::Outcome;
use crate::load::execute;
use crate::report::{BrokerReport, LoadReport, Report, Rounds, note};
use crate::scenario::{Scenario, Settings};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the ratios are taken against.
const OURS: &str = "ours";
/// Peers: label and the environment variable that names the program.
const PEERS: [(&str, &str); 2] = [("busrtd", "BUSRTD"), ("elbusd-peer", "ELBUSD_PEER")];

/// One program that takes part.
#[derive(Clone, Debug)]
struct Contestant {
    label: &'static str,
    program: Program,
}

/// Measures every load with every broker.
pub(crate) fn run(args: &CompareArgs) -> Result<Report, Failure> {
    let loads = args.load.loads(&args.scenarios)?;
    let options = BrokerOptions {
        workers: args.workers,
        timeout: args.timeout,
        queue_size: args.queue_size,
        tcp: args.tcp,
    };
    let (contestants, not_compared) = contestants(args)?;
    let mut report = Report::new(not_compared);
    report.options = Some(options);
    for contestant in &contestants {
        report.brokers.push(describe(contestant, options)?);
    }
    for settings in loads {
        let mut taking_part = contestants.clone();
        let relay = args.relay && settings.scenario == Scenario::Message && settings.senders == 1;
        if settings.scenario == Scenario::Relay || (relay && settings.receivers == 1) {
            taking_part.push(Contestant { label: "relay", program: Program::Relay });
        }
        report.loads.push(measure(&settings, &taking_part, args.rounds, options)?);
    }
    Ok(report)
}

/// Ours first, then the peers that are there; the labels of those that are not.
fn contestants(args: &CompareArgs) -> Result<(Vec<Contestant>, Vec<String>), Failure> {
    let ours = Program::Broker { path: our_path(args)?, extra: args.elbusd_arg.clone() };
    let mut contestants = vec![Contestant { label: OURS, program: ours }];
    let mut missing = Vec::new();
    for (label, variable) in PEERS {
        match from_environment(variable) {
            Some(path) => {
                let program = Program::Broker { path, extra: Vec::new() };
                contestants.push(Contestant { label, program });
            }
            None => missing.push(format!("{label} is not compared: {variable} is not set")),
        }
    }
    Ok((contestants, missing))
}

fn our_path(args: &CompareArgs) -> Result<PathBuf, Failure> {
    if let Some(path) = args.elbusd.clone().or_else(|| from_environment("ELBUSD")) {
        return Ok(path);
    }
    let this = std::env::current_exe().context(|| "this program")?;
    let beside = this.with_file_name("elbusd");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::new("our broker is not beside this program: give it with --elbusd or ELBUSD"))
}

fn from_environment(variable: &str) -> Option<PathBuf> {
    let value: OsString = std::env::var_os(variable)?;
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// Starts a broker once, to see that it starts and what version it states.
fn describe(contestant: &Contestant, options: BrokerOptions) -> Result<BrokerReport, Failure> {
    let broker = BrokerProcess::start(&contestant.program, options).context(|| contestant.label)?;
    // A broker without the core RPC client is compared all the same.
    let version = broker_info::version(&broker.target().address).unwrap_or_default();
    let path = match &contestant.program {
        Program::Broker { path, .. } => path.display().to_string(),
        Program::Relay => String::new(),
    };
    Ok(BrokerReport { label: contestant.label.to_owned(), path, version })
}

fn measure(
    settings: &Settings,
    contestants: &[Contestant],
    rounds: u32,
    options: BrokerOptions,
) -> Result<LoadReport, Failure> {
    let mut load = LoadReport::new(settings.clone());
    for contestant in contestants {
        load.brokers.push(Rounds { label: contestant.label.to_owned(), outcomes: Vec::new() });
    }
    for round in 1..=rounds {
        for (contestant, rounds_of) in contestants.iter().zip(&mut load.brokers) {
            note(&format!("{}: round {round} of {rounds}, {}", load.title, contestant.label));
            let broker = BrokerProcess::start(&contestant.program, options).context(|| contestant.label)?;
            let raw = matches!(contestant.program, Program::Relay);
            let settings = Settings { raw, ..settings.clone() };
            // A broker that fails under load is a result too; the others go on.
            let outcome = execute(&broker.target(), &settings);
            rounds_of.outcomes.push(outcome.unwrap_or_else(|failure| Outcome::failed(&failure)));
        }
    }
    Ok(load)
}
