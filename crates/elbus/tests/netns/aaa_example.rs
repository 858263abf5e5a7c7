//! The example `broker_aaa` as the process it is, with clients on this host and on others: what the security model
//! says of `test` and `test2`, with addresses that are real.

use crate::net::{Host, Lan, can_have_hosts};
use crate::support::{Process, example};
use elbus::{Client, ClientError, ErrorCode, Options, QoS, connect};
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How often the example throws `test2` out, as it says itself.
const PERIOD: Duration = Duration::from_secs(5);
/// How long anything may take that is on its way.
const WAIT: Duration = Duration::from_secs(20);

/// Logs in from a host.
fn log_in(host: &Host, address: &str, name: &str) -> Result<Client, ClientError> {
    let (address, options) = (address.to_owned(), Options::new(name));
    host.block_on(async move { connect(&address, options).await })
}

/// Logs in where it is allowed, as soon as the broker has seen the last one of that name leave.
fn admitted(host: &Host, address: &str, name: &str) -> Client {
    loop {
        match log_in(host, address, name) {
            Err(ClientError::Refused { code: ErrorCode::Busy, .. }) => {}
            login => return login.unwrap(),
        }
    }
}

fn is_denied(login: &Result<Client, ClientError>) -> bool {
    matches!(login, Err(ClientError::Refused { code: ErrorCode::Access, .. }))
}

#[test]
fn c26_the_example_admits_test_from_its_own_host_only() {
    if !can_have_hosts() {
        return;
    }
    let lan = Lan::new(3);
    let [home, near, far] = &lan.hosts[..] else { unreachable!() };
    // With its own period, unless told otherwise.
    let mut command = home.namespace.command(example("broker_aaa"));
    let mut process = Process::spawn(command.arg("[::]:7777"));
    process.expect(&["listening on tcp://[::]:7777"]);

    let mut refused = 0;
    for (host, address) in [
        (near, "10.77.0.1:7777"),
        (near, "[fd77::1]:7777"),
        (far, "10.77.0.1:7777"),
        (far, "[fd77::1]:7777"),
        // Its own host by an outward address is not the loopback network.
        (home, "10.77.0.1:7777"),
    ] {
        for name in ["test", "other"] {
            assert!(is_denied(&log_in(host, address, name)), "{name} to {address}");
            refused += 1;
        }
    }
    for address in ["127.0.0.1:7777", "[::1]:7777"] {
        admitted(home, address, "test").close();
        assert!(is_denied(&log_in(home, address, "other")));
    }
    let test = admitted(home, "127.0.0.1:7777", "test");

    // `test2` from anywhere, for at most one period at a time.
    let mut stays = Vec::new();
    for (host, address) in [(near, "10.77.0.1:7777"), (far, "[fd77::1]:7777")] {
        let test2 = log_in(host, address, "test2").unwrap();
        let start = Instant::now();
        let client = test2.clone();
        let news = host.block_on(async move {
            assert_eq!(client.publish("news/a", "", QoS::Processed).unwrap().await, Ok(()));
            assert_eq!(client.send("test", "", QoS::Processed).unwrap().await, Ok(()));
            let denied = Err(ErrorCode::Access);
            assert_eq!(client.publish("other", "", QoS::Processed).unwrap().await, denied);
            assert_eq!(client.send("other", "", QoS::Processed).unwrap().await, denied);
            assert_eq!(client.broadcast("*", "", QoS::Processed).unwrap().await, denied);
            client.subscribe(&["news/#"]).ready().await
        });
        assert_eq!(news, Err(ErrorCode::Access));
        host.block_on(async move { timeout(WAIT, test2.closed()).await }).unwrap();
        stays.push(start.elapsed());
        process.expect(&["test2 was disconnected; it may come again"]);
    }
    assert!(test.is_open());
    println!(
        "C26: the example: {refused} logins from elsewhere refused; test2 was thrown out after {stays:.1?}"
    );
    let second = Duration::from_secs(1);
    assert!(stays.iter().all(|stay| *stay <= PERIOD + second), "{stays:?}");
    // The second came right after the first was thrown out, so it had all of its period.
    assert!(stays[1] + second >= PERIOD, "{stays:?}");
    process.signal("TERM");
    let (status, output) = process.wait();
    assert!(status.success(), "{status}\n{output}");
}

#[test]
fn c26_hosts_edited_live_hold_from_the_next_login_on() {
    if !can_have_hosts() {
        return;
    }
    let lan = Lan::new(2);
    let [home, far] = &lan.hosts[..] else { unreachable!() };
    let mut command = home.namespace.command(example("broker_aaa_live"));
    let (mut process, mut input) = Process::spawn_with_input(command.arg("[::]:7777"));
    process.expect(&["listening on tcp://[::]:7777"]);
    let mut say = |line: &str, answer: &str| {
        writeln!(input, "{line}").unwrap();
        process.expect(&[answer]);
    };
    let by_v4 = || log_in(far, "10.77.0.1:7777", "a");
    assert!(is_denied(&by_v4()));
    say("allow a hosts=10.77.0.2/32", "a may log in");
    let client = by_v4().unwrap();
    say("allow a hosts=fd77::/64", "a may log in");
    assert!(client.is_open());
    say("kick a", "a was disconnected");
    far.block_on(async move { timeout(WAIT, client.closed()).await }).unwrap();
    assert!(is_denied(&by_v4()));
    let client = log_in(far, "[fd77::1]:7777", "a").unwrap();
    say("allow a hosts=127.0.0.0/8", "a may log in");
    say("kick a", "a was disconnected");
    drop(client);
    assert!(is_denied(&log_in(far, "[fd77::1]:7777", "a")));
    drop(input);
    let (status, output) = process.wait();
    assert!(status.success(), "{status}\n{output}");
    println!("C26: the live example: three edits of the hosts held from the next login on");
}
