//! Who takes part in `compare`: our broker, those of the reference projects, and those that speak another dialect,
//! as far as they are found. How they are started is in `broker_process.rs`, in which turns in `compare.rs`.

use crate::broker_process::{Program, Transport};
use crate::dialect::Dialect;
use crate::failure::{Context, Failure};
use crate::scenario::{Scenario, Settings};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the ratios are taken against.
pub(crate) const OURS: &str = "ours";
/// What only moves bytes.
pub(crate) const RELAY: &str = "relay";
/// Brokers of the same dialect: name and the environment variable that names the program.
const PEERS: [(&str, &str); 2] = [("busrtd", "BUSRTD"), ("elbusd", "ELBUSD_PEER")];
/// Where Debian keeps servers; not on everybody's PATH.
const SERVERS: &str = "/usr/local/sbin:/usr/sbin";

/// One program over one transport.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) transport: Transport,
    pub(crate) program: Program,
}

impl Contestant {
    /// Name and transport.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.name, self.transport)
    }

    /// Why a load says nothing about it; `None` if it can be measured.
    pub(crate) fn cannot(&self, settings: &Settings) -> Option<String> {
        let reason = match &self.program {
            Program::Broker { .. } => None,
            Program::Foreign { dialect, .. } => dialect.cannot(settings),
            Program::Relay => {
                let pair = settings.senders == 1 && settings.receivers == 1;
                let moves = matches!(settings.scenario, Scenario::Message | Scenario::Relay);
                (!moves || !pair).then_some("it moves bytes from one to one")
            }
        };
        reason.map(|reason| format!("{}: {reason}", self.name))
    }
}

/// All programs that were found, ours first.
#[derive(Debug)]
pub(crate) struct Field {
    programs: Vec<(String, Program)>,
    /// Names of those that were not, with what to do about it.
    missing: Vec<(String, String)>,
}

impl Field {
    /// Looks for everybody. `variants` are names for our broker with further arguments.
    pub(crate) fn find(
        ours: Option<PathBuf>,
        arguments: &[OsString],
        variants: &BTreeMap<String, Vec<OsString>>,
    ) -> Result<Self, Failure> {
        let path = our_path(ours)?;
        let broker = |extra: &[OsString]| Program::Broker { path: path.clone(), extra: extra.to_vec() };
        let mut field = Self { programs: vec![(OURS.to_owned(), broker(arguments))], missing: Vec::new() };
        for (name, further) in variants {
            field.programs.push((name.clone(), broker(&[arguments, further].concat())));
        }
        for (name, variable) in PEERS {
            let path = from_environment(variable);
            let remedy = format!("{variable} is not set");
            field.add(name, path.map(|path| Program::Broker { path, extra: Vec::new() }), remedy);
        }
        for dialect in Dialect::FOREIGN {
            let (server, variable, package) = dialect.server();
            let path = from_environment(variable).or_else(|| on_path(server));
            let remedy =
                format!("on Debian and Ubuntu apt-get install {package}, or {variable} names {server}");
            field.add(dialect.broker(), path.map(|path| Program::Foreign { dialect, path }), remedy);
        }
        field.programs.push((RELAY.to_owned(), Program::Relay));
        Ok(field)
    }

    fn add(&mut self, name: &str, program: Option<Program>, remedy: String) {
        match program {
            Some(program) => self.programs.push((name.to_owned(), program)),
            None => self.missing.push((name.to_owned(), remedy)),
        }
    }

    /// The contestant of a label; `None` if there is no such program here, or it does not serve that transport.
    pub(crate) fn contestant(&self, label: &str) -> Option<Contestant> {
        let (name, transport) = label.split_once(' ')?;
        let transport = Transport::from_name(transport)?;
        self.over(transport).find(|contestant| contestant.name == name)
    }

    /// Everybody over one transport.
    fn over(&self, transport: Transport) -> impl Iterator<Item = Contestant> {
        let serves = move |program: &Program| {
            transport == Transport::Tcp || !matches!(program, Program::Foreign { .. })
        };
        let programs = self.programs.iter().filter(move |(_, program)| serves(program));
        programs.map(move |(name, program)| Contestant {
            name: name.clone(),
            transport,
            program: program.clone(),
        })
    }

    /// Everybody who can take part in `settings`, and why others cannot; the relay where it is asked for.
    pub(crate) fn taking_part(
        &self,
        settings: &Settings,
        transports: &[Transport],
        relay: bool,
    ) -> (Vec<Contestant>, Vec<String>) {
        let everybody = transports.iter().flat_map(|transport| self.over(*transport));
        let wanted = everybody.filter(|it| relay || !matches!(it.program, Program::Relay));
        let (mut able, mut unable) = (Vec::new(), Vec::new());
        for contestant in wanted {
            match contestant.cannot(settings) {
                None => able.push(contestant),
                // The relay is there for one load; of the others nobody expects it.
                Some(_) if matches!(contestant.program, Program::Relay) => {}
                Some(reason) => unable.push(reason),
            }
        }
        (able, unable)
    }

    /// What is missing, of those who could take part in any of `loads`.
    pub(crate) fn missing(&self, loads: &[&Settings], transports: &[Transport]) -> Vec<String> {
        let could = |name: &str| {
            let foreign = Dialect::FOREIGN.into_iter().find(|dialect| dialect.broker() == name);
            foreign.is_none_or(|dialect| {
                transports.contains(&Transport::Tcp)
                    && loads.iter().any(|settings| dialect.cannot(settings).is_none())
            })
        };
        let missing = self.missing.iter().filter(|(name, _)| could(name));
        missing.map(|(name, remedy)| format!("{name} is not compared: {remedy}")).collect()
    }
}

fn our_path(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = given.or_else(|| from_environment("ELBUSD")) {
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

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(std::env::split_paths(Path::new(SERVERS)));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field() -> Field {
        let broker = || Program::Broker { path: PathBuf::from("x"), extra: Vec::new() };
        let nats = Program::Foreign { dialect: Dialect::Nats, path: PathBuf::from("y") };
        Field {
            programs: vec![
                (OURS.to_owned(), broker()),
                ("nats".to_owned(), nats),
                (RELAY.to_owned(), Program::Relay),
            ],
            missing: vec![
                ("busrtd".to_owned(), "BUSRTD is not set".to_owned()),
                ("redis".to_owned(), "install it".to_owned()),
            ],
        }
    }

    fn labels(scenario: Scenario, transports: &[Transport]) -> Vec<String> {
        let (able, _) = field().taking_part(&Settings::of(scenario), transports, true);
        able.iter().map(Contestant::label).collect()
    }

    #[test]
    fn other_dialects_take_part_over_tcp_in_what_they_can() {
        let both = [Transport::Unix, Transport::Tcp];
        assert_eq!(labels(Scenario::Publish, &both), ["ours unix", "ours tcp", "nats tcp"]);
        assert_eq!(labels(Scenario::Publish, &[Transport::Unix]), ["ours unix"]);
        assert_eq!(labels(Scenario::Message, &both), ["ours unix", "relay unix", "ours tcp", "relay tcp"]);
        let (_, unable) = field().taking_part(&Settings::of(Scenario::Broker), &both, false);
        assert_eq!(unable, ["nats: it has no calls of the broker"]);
    }

    #[test]
    fn labels_name_program_and_transport() {
        let field = field();
        assert_eq!(field.contestant("ours tcp").unwrap().label(), "ours tcp");
        for label in ["nats unix", "busrtd unix", "ours", "ours udp"] {
            assert!(field.contestant(label).is_none(), "{label}");
        }
    }

    #[test]
    fn only_what_could_have_taken_part_is_missed() {
        let missing = |scenario, transport| field().missing(&[&Settings::of(scenario)], &[transport]).len();
        assert_eq!(missing(Scenario::Publish, Transport::Tcp), 2);
        assert_eq!(missing(Scenario::Publish, Transport::Unix), 1);
        assert_eq!(missing(Scenario::Message, Transport::Tcp), 1);
    }
}
