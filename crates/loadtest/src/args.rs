//! The command line. What the options mean for a load is in `scenario.rs`.

use crate::broker_process::Transport;
use crate::connection::Address;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::scenario::{Method, Scenario, Settings, SubscribeBy, suite};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Load generator for brokers that speak the elbus wire protocol.
#[derive(Debug, Parser)]
#[command(name = "elbus-loadtest", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drives one broker that is running already
    Run(RunArgs),
    /// Starts brokers and measures them in turns: A B C, A B C, …
    Compare(CompareArgs),
    /// Takes two connections, in pairs, and copies from the first to the second in pieces of 64 KiB
    Relay {
        /// UNIX socket path or HOST:PORT
        listen: Address,
    },
    /// Becomes PROGRAM, which the kernel kills if the process that started this ends
    #[command(hide = true)]
    Leash {
        /// What to execute
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        program: Vec<OsString>,
    },
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to do
    pub(crate) scenario: Scenario,
    /// Address of the broker: UNIX socket path or HOST:PORT
    #[arg(long)]
    pub(crate) broker: Address,
    /// What it speaks
    #[arg(long, default_value = "elbus")]
    pub(crate) dialect: Dialect,
    /// Process of the broker; without it nothing is said about its CPU and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// What to do; without any the loads behind the goals S1 to S9
    pub(crate) scenarios: Vec<Scenario>,
    /// Takes loads, their options and who takes part from FILE, in JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenarios", "tcp", "both", "relay"])]
    pub(crate) suite: Option<PathBuf>,
    /// Times each broker is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Our broker; the environment variable ELBUSD else, `elbusd` beside this program else
    #[arg(long)]
    pub(crate) elbusd: Option<PathBuf>,
    /// Further argument for our broker alone, repeatable: --elbusd-arg=--name=value
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) elbusd_arg: Vec<OsString>,
    /// Worker threads of each broker
    #[arg(long, short, default_value_t = 2)]
    pub(crate) workers: u32,
    /// Timeout of each broker in seconds
    #[arg(long, short, default_value_t = 5)]
    pub(crate) timeout: u32,
    /// Frames in each client's queue of each broker
    #[arg(long, default_value_t = 8192)]
    pub(crate) queue_size: u32,
    /// Over TCP on the loopback instead of UNIX sockets
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Over UNIX sockets and over TCP, in turns
    #[arg(long, conflicts_with = "tcp")]
    pub(crate) both: bool,
    /// Measures the relay beside the brokers in every load of one sender and one receiver
    #[arg(long)]
    pub(crate) relay: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl CompareArgs {
    /// What brokers are reached over.
    pub(crate) fn transports(&self) -> Vec<Transport> {
        match (self.both, self.tcp) {
            (true, _) => Transport::ALL.to_vec(),
            (false, true) => vec![Transport::Tcp],
            (false, false) => vec![Transport::Unix],
        }
    }
}

/// A load in a suite.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
pub(crate) struct SuiteLoad {
    /// What to do
    pub(crate) scenario: Scenario,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Where results go.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// All figures as JSON, into FILE, or instead of the table with `-`
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options that change the settings of a load; what is not given keeps the default of its scenario.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Clients that send
    #[arg(long, value_parser = at_least_one)]
    senders: Option<usize>,
    /// Clients that receive
    #[arg(long, value_parser = at_least_one)]
    receivers: Option<usize>,
    /// Bytes of each payload
    #[arg(long)]
    payload: Option<usize>,
    /// Topics published to in turn
    #[arg(long, value_parser = at_least_one)]
    topics: Option<usize>,
    /// How receivers of publications subscribe
    #[arg(long)]
    subscribe_by: Option<SubscribeBy>,
    /// Wildcard masks held by clients that take no part
    #[arg(long)]
    subscriptions: Option<usize>,
    /// Clients that share those masks
    #[arg(long, value_parser = at_least_one)]
    holders: Option<usize>,
    /// Idle clients of `idle`
    #[arg(long, value_parser = at_least_one)]
    clients: Option<usize>,
    /// Quality of service: 0, 1 acknowledged, 2 realtime, 3 both
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
    qos: Option<u8>,
    /// Sets the realtime bit
    #[arg(long)]
    realtime: bool,
    /// Operations, round trips or calls each sender has under way
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Option<u32>,
    /// Frames per second of `rate`, all senders together
    #[arg(long)]
    rate: Option<f64>,
    /// Method that `broker` calls
    #[arg(long)]
    method: Option<Method>,
    /// Seconds of load before the measured phase
    #[arg(long)]
    warm_up: Option<f64>,
    /// Seconds of the measured phase; for `idle` best a multiple of the broker's timeout
    #[arg(long)]
    duration: Option<f64>,
    /// Ends the measured phase after this many deliveries or answers instead
    #[arg(long)]
    messages: Option<u64>,
    /// Most frames under way to one receiver; 4096 or 4 MiB unless given, whichever is less
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    window: Option<u64>,
    /// Threads that receive, and as many that send; the number of CPUs unless given
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// Seconds between the pings of a client that says nothing else
    #[arg(long)]
    ping_every: Option<f64>,
    /// First part of every client name and topic
    #[arg(long)]
    prefix: Option<String>,
    /// The far side is `relay`: no login, bytes are counted
    #[arg(long)]
    raw: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

impl LoadArgs {
    /// The settings of `scenario` with these options.
    pub(crate) fn settings(&self, scenario: Scenario) -> Result<Settings, Failure> {
        self.over(Settings::of(scenario))
    }

    /// The loads of `compare`: one for each scenario, `relay` in two sizes, or the whole suite.
    pub(crate) fn loads(&self, scenarios: &[Scenario]) -> Result<Vec<Settings>, Failure> {
        let loads = if scenarios.is_empty() {
            suite()
        } else {
            let both = |scenario: &Scenario| {
                let of = Settings::of(*scenario);
                let large = Settings { payload: 64 << 10, ..of.clone() };
                let twice = *scenario == Scenario::Relay && self.payload.is_none();
                if twice { vec![of, large] } else { vec![of] }
            };
            scenarios.iter().flat_map(both).collect()
        };
        loads.into_iter().map(|settings| self.over(settings)).collect()
    }

    fn over(&self, base: Settings) -> Result<Settings, Failure> {
        let payload = self.payload.unwrap_or(base.payload);
        let qos = self.qos.unwrap_or(base.qos);
        let settings = Settings {
            scenario: base.scenario,
            senders: self.senders.unwrap_or(base.senders),
            receivers: self.receivers.unwrap_or(base.receivers),
            payload,
            topics: self.topics.unwrap_or(base.topics),
            subscribe_by: self.subscribe_by.unwrap_or(base.subscribe_by),
            subscriptions: self.subscriptions.unwrap_or(base.subscriptions),
            holders: self.holders.unwrap_or(base.holders),
            clients: self.clients.unwrap_or(base.clients),
            qos: if self.realtime { qos | 2 } else { qos },
            in_flight: self.in_flight.unwrap_or(base.in_flight),
            rate: self.rate.unwrap_or(base.rate),
            method: self.method.unwrap_or(base.method),
            warm_up: self.warm_up.unwrap_or(base.warm_up),
            duration: self.duration.unwrap_or(base.duration),
            messages: self.messages,
            window: self.window.unwrap_or_else(|| Settings::default_window(payload)),
            threads: self.threads.unwrap_or(base.threads),
            ping_every: self.ping_every.unwrap_or(base.ping_every),
            prefix: self.prefix.clone().unwrap_or(base.prefix),
            raw: self.raw,
        };
        check(settings)
    }
}

fn check(settings: Settings) -> Result<Settings, Failure> {
    let least = settings.least_payload();
    if settings.payload < least {
        return Err(Failure::new(format!("--payload must be at least {least} to carry a sequence number")));
    }
    let seconds = [
        ("--warm-up", settings.warm_up, 0.0),
        ("--duration", settings.duration, 0.01),
        ("--ping-every", settings.ping_every, 0.01),
        ("--rate", settings.rate, 0.01),
    ];
    for (name, value, least) in seconds {
        if !(value >= least && value <= 1e9) {
            return Err(Failure::new(format!("{name} must be a number of at least {least}")));
        }
    }
    if settings.raw && (settings.scenario != Scenario::Message || settings.senders + settings.receivers != 2)
    {
        return Err(Failure::new("--raw goes with `message`, one sender and one receiver"));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(line: &str) -> Result<Vec<Settings>, Failure> {
        let words = ["elbus-loadtest", "compare"].into_iter().chain(line.split_whitespace());
        let Command::Compare(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!("compare was asked for");
        };
        args.load.loads(&args.scenarios)
    }

    #[test]
    fn options_go_over_the_defaults_of_each_scenario() {
        let found = loads("message acked --payload 65536 --realtime").unwrap();
        let facts = found.iter().map(|it| (it.scenario, it.qos, it.window)).collect::<Vec<_>>();
        assert_eq!(facts, [(Scenario::Message, 2, 64), (Scenario::Acked, 3, 64)]);
    }

    #[test]
    fn relay_comes_in_two_sizes_unless_one_is_given() {
        let sizes = |line| loads(line).unwrap().iter().map(|it| it.payload).collect::<Vec<_>>();
        assert_eq!(sizes("relay"), [100, 65_536]);
        assert_eq!(sizes("relay --payload 1000"), [1000]);
        assert_eq!(sizes("").len(), 12);
    }

    #[test]
    fn impossible_settings_are_refused() {
        for line in [
            "message --payload 15",
            "rate --payload 23",
            "message --duration 0",
            "rate --rate NaN",
            "publish --raw",
            "message --raw --receivers 2",
        ] {
            assert!(loads(line).is_err(), "{line}");
        }
        assert!(loads("broker --payload 0").is_ok());
    }
}
