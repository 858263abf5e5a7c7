//! The program from outside: exit status, JSON, what is left behind. Against the relay, which needs no broker,
//! against BUS/RT's broker where the environment variable BUSRTD names it, and against the servers of other dialects
//! that are installed.

use serde_json::Value;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_elbus-loadtest");

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A socket path of this test alone, removed with it.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("loadtest-test-{}-{name}.sock", std::process::id())))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // The process behind it may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn loadtest(arguments: &str) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments.split_whitespace());
    for variable in ["ELBUSD", "BUSRTD", "ELBUSD_PEER"] {
        command.env_remove(variable);
    }
    Ok(command.output()?)
}

fn json(output: &Output) -> Result<Value, Box<dyn Error>> {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {errors}").into())
}

/// Path of BUS/RT's broker, if the environment names one.
fn busrtd() -> Option<String> {
    std::env::var("BUSRTD").ok().filter(|path| !path.is_empty())
}

#[test]
fn a_relay_moves_every_byte() -> Result<(), Box<dyn Error>> {
    let socket = SocketPath::new("relay");
    let mut relay = Command::new(PROGRAM).arg("relay").arg(&socket.0).stdout(Stdio::piped()).spawn()?;
    let said = relay.stdout.take().ok_or("no output")?;
    let relay = Killed(relay);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    assert_eq!(line, "listening\n");
    for payload in [100, 70_000] {
        let line = format!(
            "run message --raw --broker {} --pid {} --payload {payload} --warm-up 0.1 --duration 0.2 --json -",
            socket.0.display(),
            relay.0.id()
        );
        let output = loadtest(&line)?;
        let report = json(&output)?;
        assert!(output.status.success(), "{report:#}");
        let outcome = &report["loads"][0]["brokers"][0]["outcomes"][0];
        assert_eq!(outcome["tally"]["lost"], 0, "{outcome:#}");
        assert!(outcome["tally"]["delivered"].as_u64() > Some(0), "{outcome:#}");
        let names = outcome["figures"].as_array().into_iter().flatten().map(|figure| &figure["name"]);
        assert!(names.into_iter().any(|name| name == "broker CPU"), "{outcome:#}");
    }
    Ok(())
}

#[test]
fn a_broker_that_does_not_start_is_one_line() -> Result<(), Box<dyn Error>> {
    for program in ["/nonexistent/elbusd", "/bin/false"] {
        let output = loadtest(&format!("compare message --rounds 1 --elbusd {program}"))?;
        let errors = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains(program) && errors.lines().count() == 1, "{errors}");
    }
    Ok(())
}

#[test]
fn a_wrong_command_line_is_refused() -> Result<(), Box<dyn Error>> {
    for (line, status) in [
        ("run message", 2),
        ("compare nothing", 2),
        ("compare message --rounds 0", 2),
        ("run message --broker /nonexistent.sock", 1),
        ("run message --broker /nonexistent.sock --payload 3", 1),
        ("run relay --broker /nonexistent.sock", 1),
    ] {
        assert_eq!(loadtest(line)?.status.code(), Some(status), "{line}");
    }
    Ok(())
}

#[test]
fn every_scenario_delivers_everything_through_the_reference_broker() -> Result<(), Box<dyn Error>> {
    let Some(busrtd) = busrtd() else {
        println!("skipped: BUSRTD is not set");
        return Ok(());
    };
    for line in [
        "message",
        "message --senders 3 --receivers 2 --tcp",
        "publish --receivers 8 --topics 5 --subscribe-by wildcard",
        "broadcast --receivers 2 --realtime",
        "acked --in-flight 64",
        "round-trip --senders 2 --in-flight 3",
        "rate --rate 1000",
        "broker",
        "broker --method benchmark",
        "subscriptions --subscriptions 1000 --holders 10",
        "idle --clients 20",
    ] {
        let common = "--rounds 1 --warm-up 0.1 --duration 0.2 --json -";
        let output = loadtest(&format!("compare {line} {common} --elbusd {busrtd}"))?;
        let report = json(&output)?;
        assert!(output.status.success(), "{line}: {report:#}");
        assert_eq!(report["not_compared"].as_array().map(Vec::len), Some(2), "{line}");
        let figures = &report["loads"][0]["brokers"][0]["outcomes"][0]["figures"];
        assert!(figures.as_array().is_some_and(|figures| !figures.is_empty()), "{line}: {report:#}");
    }
    Ok(())
}

/// Runs every load `broker` can do, as a suite without our broker. Why not, where it is not installed.
fn every_load_of(broker: &str, more: &[&str]) -> Result<Option<String>, Box<dyn Error>> {
    let lines = [
        "publish",
        "publish --receivers 8 --topics 3",
        "publish --senders 5 --payload 70000",
        "round-trip",
        "round-trip --senders 2 --in-flight 8",
        "idle --clients 20",
    ];
    let common = ["--warm-up", "0.1", "--duration", "0.2"];
    let loads = lines.iter().chain(more).map(|line| {
        let arguments = line.split_whitespace().chain(common).collect::<Vec<_>>();
        serde_json::json!({ "load": line, "arguments": arguments, "contestants": [format!("{broker} tcp")] })
    });
    let suite = serde_json::json!({ "loads": loads.collect::<Vec<_>>() });
    let file = SocketPath::new(broker);
    std::fs::write(&file.0, suite.to_string())?;
    let line = format!("compare --rounds 1 --elbusd /nonexistent --json - --suite {}", file.0.display());
    let output = loadtest(&line)?;
    let report = json(&output)?;
    let list = |at: &str| report.pointer(at).and_then(Value::as_array).into_iter().flatten();
    let missing = list("/not_compared").filter_map(Value::as_str).find(|reason| reason.starts_with(broker));
    if let Some(reason) = missing {
        return Ok(Some(reason.to_owned()));
    }
    assert!(output.status.success(), "{report:#}");
    assert!(report.pointer("/brokers/0/version").is_some_and(Value::is_string), "{report:#}");
    for load in list("/loads") {
        assert!(load.pointer("/brokers/0/outcomes/0/figures/0").is_some(), "{load:#}");
    }
    Ok(None)
}

#[test]
fn nats_delivers_everything() -> Result<(), Box<dyn Error>> {
    if let Some(reason) = every_load_of("nats", &["publish --subscribe-by wildcard --topics 3"])? {
        println!("skipped: {reason}");
    }
    Ok(())
}

#[test]
fn redis_delivers_everything() -> Result<(), Box<dyn Error>> {
    if let Some(reason) = every_load_of("redis", &[])? {
        println!("skipped: {reason}");
    }
    Ok(())
}

#[test]
fn mosquitto_delivers_everything() -> Result<(), Box<dyn Error>> {
    let more = ["acked", "acked --in-flight 64", "publish --subscribe-by wildcard --topics 3"];
    if let Some(reason) = every_load_of("mosquitto", &more)? {
        println!("skipped: {reason}");
    }
    Ok(())
}

#[test]
fn a_load_without_a_word_for_it_is_refused() -> Result<(), Box<dyn Error>> {
    let output = loadtest("run broker --dialect nats --broker 127.0.0.1:1")?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(errors.contains("nats: it has no calls of the broker"), "{errors}");
    Ok(())
}

#[test]
fn a_receiver_that_is_thrown_out_fails_the_run() -> Result<(), Box<dyn Error>> {
    let Some(busrtd) = busrtd() else {
        println!("skipped: BUSRTD is not set");
        return Ok(());
    };
    let socket = SocketPath::new("small-queue");
    let broker = Command::new(busrtd)
        .arg("-B")
        .arg(&socket.0)
        .args(["--queue-size", "20"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let broker = Killed(broker);
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < 10 {
        if std::os::unix::net::UnixStream::connect(&socket.0).is_ok() {
            break;
        }
        std::thread::yield_now();
    }
    let output = loadtest(&format!("run message --broker {} --pid {}", socket.0.display(), broker.0.id()))?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
