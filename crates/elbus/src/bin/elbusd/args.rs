//! The command line of `elbusd`. Options that the reference servers have mean the same here.

use clap::Parser;
use elbus::{BindAddress, BrokerOptions, Listener, QueueLimits};
use std::io::Write;
use std::time::Duration;

/// Stand-alone message broker, wire-compatible with elbus and BUS/RT.
#[derive(Debug, Parser)]
#[command(name = "elbusd", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Address to listen on: a UNIX socket path (absolute, or ending in .sock, .socket or .ipc) or HOST:PORT.
    /// May be given several times
    #[arg(short = 'B', long = "bind", value_name = "ADDRESS", required = true)]
    bind: Vec<BindAddress>,
    /// Threads, 1 to 256
    #[arg(short = 'w', long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,
    /// Timeout in seconds, 0.1 to 3600: a login may take this long, half of it is the time between pings
    #[arg(short = 't', long, default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// Frames a client's queue may hold, 1 to 16777216
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    queue_size: u32,
    /// Microseconds, 0 to 10000, for which a connection that has just sent something is looked at again and again before
    /// its thread rests: quicker answers for cores that are busy meanwhile
    #[arg(long, value_name = "MICROS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    busy_poll: u16,
    /// Permission bits of UNIX sockets, in octal
    #[arg(long, default_value = "600", value_parser = octal)]
    mode: u32,
    /// A new client takes a name that is in use instead of being refused
    #[arg(long)]
    force_register: bool,
    /// Log connections and their ends, not only problems
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// Why the program does not go on.
pub(crate) enum Stop {
    /// Help or version was asked for and shown.
    Shown,
    /// The command line cannot be used; one line.
    Wrong(String),
}

impl Args {
    pub(crate) fn parse() -> Result<Self, Stop> {
        Self::try_parse().map_err(|error| {
            if error.use_stderr() {
                return Stop::Wrong(one_line(&error));
            }
            let _ = write!(std::io::stdout(), "{error}");
            Stop::Shown
        })
    }

    pub(crate) fn broker_options(&self) -> BrokerOptions {
        let defaults = BrokerOptions::default();
        BrokerOptions {
            queue: QueueLimits { frames: self.queue_size as usize, ..defaults.queue },
            force_register: self.force_register,
            asks_allocator: !cfg!(elbus_system_allocator),
            busy_poll: Duration::from_micros(self.busy_poll.into()),
            ..defaults
        }
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = Listener> {
        self.bind.iter().map(|address| Listener::new(address.clone()).timeout(self.timeout).mode(self.mode))
    }
}

/// The message without usage and tips, which would bury it.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let message =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    message.trim_start_matches("error: ").to_owned()
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.1 to 3600 is needed".to_owned()),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("octal permission bits from 0 to 777 are needed".to_owned()),
    }
}
