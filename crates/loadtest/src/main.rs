//! `elbus-loadtest`: puts brokers under load over the wire and measures them: any broker that speaks the protocol,
//! and beside them those of NATS, Redis and MQTT. It holds no broker and no client library: `elbus-protocol` is all
//! it shares with what it measures.
//!
//! Reading order: `args.rs` (the command line) → `scenario.rs` (settings) → `load.rs` (which code) → `setup.rs`
//! and `flood.rs` (one-way loads) or `exchange.rs` (loads with answers) → `stage.rs` (phases) → `report.rs`;
//! `compare.rs` goes around all of it, `suite.rs` says what it can read from a file. What brokers of other
//! protocols are told is in `dialect.rs`.

mod args;
mod broker_info;
mod broker_process;
mod compare;
mod connection;
mod contestants;
mod cpu;
mod dialect;
mod exchange;
mod failure;
mod far_side;
mod figure;
mod flood;
mod flow;
mod idle;
mod inbox;
mod keeper;
mod latency;
mod load;
mod numbers;
mod outgoing;
mod rate;
mod receive;
mod relay;
mod report;
mod request;
mod scenario;
mod sender;
mod sequence;
mod setup;
mod stage;
mod statistics;
mod subscriptions;
mod suite;

use args::{Cli, Command, RunArgs};
use clap::Parser;
use failure::Failure;
use report::{LoadReport, Report, Rounds, note};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scenario::Scenario;
use setup::Target;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status 0: every frame arrived; 1: one did not, or the run failed; 2: the command line is wrong.
fn main() -> ExitCode {
    let cli = Cli::parse();
    match command(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            note(&format!("elbus-loadtest: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// True if nothing was lost.
fn command(command: &Command) -> Result<bool, Failure> {
    let (report, output) = match command {
        Command::Leash { program } => return Err(broker_process::become_leashed(program)),
        Command::Relay { listen } => return relay::run(listen).map(|()| true),
        Command::Run(args) => {
            raise_descriptor_limit();
            (run(args)?, &args.output)
        }
        Command::Compare(args) => {
            raise_descriptor_limit();
            (compare::run(args)?, &args.output)
        }
    };
    report.write(output.json.as_deref())?;
    Ok(!report.has_problems())
}

fn run(args: &RunArgs) -> Result<Report, Failure> {
    if args.scenario == Scenario::Relay {
        return Err(Failure::new("`relay` compares: elbus-loadtest compare relay, or run message --raw"));
    }
    let settings = args.load.settings(args.scenario)?;
    if let Some(reason) = args.dialect.cannot(&settings) {
        return Err(Failure::new(format!("{}: {reason}", args.dialect.broker())));
    }
    let target = Target { address: args.broker.clone(), dialect: args.dialect, pid: args.pid };
    let outcome = load::execute(&target, &settings)?;
    let mut load = LoadReport::new(settings);
    load.brokers.push(Rounds { label: args.broker.to_string(), outcomes: vec![outcome] });
    let mut report = Report::new(Vec::new());
    report.loads.push(load);
    Ok(report)
}

/// Every client is a descriptor here and one in the broker, which inherits the limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, connecting says which client was one too many.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
