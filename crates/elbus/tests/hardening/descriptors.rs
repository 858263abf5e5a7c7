//! No descriptor left: C08.

use crate::frame::{GREETING, name_field};
use crate::stall::pause;
use crate::support;
use crate::trial::{Plan, Trial, millis, run, slower};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

const SOCKETS: usize = 400;
const WINDOW: Duration = Duration::from_secs(3);
/// A twentieth of a core, and what the innocent clients take.
const SHARE_PERCENT: u128 = 5;

/// 400 connections at once, and what they cost while they stay.
fn exhaust(trial: &Trial) -> String {
    // What the broker takes for the innocent clients alone.
    let before = trial.processor_time();
    pause(WINDOW / 3);
    let idle = trial.processor_time().saturating_sub(before) * 3;
    let mut let_in = 0;
    let attackers: Vec<_> = (0..SOCKETS)
        .map(|number| {
            let mut client = UnixStream::connect(trial.path()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            // Once one is refused, the others only wait.
            if let_in == number {
                // It may have been closed already.
                let _ = client.write_all(&[&GREETING[..], &name_field(format!("v.many{number}"))].concat());
                let mut answer = [0; 5];
                let_in += usize::from(client.read_exact(&mut answer).is_ok() && answer[4] == 1);
            }
            client
        })
        .collect();
    // Some wait to be accepted, or were closed: that may be said once, in the first second.
    pause(Duration::from_millis(1_200));
    let lines = trial.log_lines();
    let before = trial.processor_time();
    let trips = trial.innocent().count;
    let begin = Instant::now();
    pause(WINDOW);
    let lasted = begin.elapsed();
    let taken = trial.processor_time().saturating_sub(before).saturating_sub(idle);
    let percent = taken.as_millis() * 100 / lasted.as_millis();
    let more_lines = trial.log_lines() - lines;
    let more_trips = trial.innocent().count - trips;
    assert_eq!(attackers.len(), SOCKETS);
    let held = trial.descriptors();
    assert!((150..SOCKETS).contains(&let_in), "{let_in} were let in");
    assert!(percent <= SHARE_PERCENT * u128::from(support::slowness()), "{percent} % of a core");
    assert!(more_lines <= 4, "{more_lines} lines in {lasted:?}");
    assert!(more_trips > 100, "innocent clients made {more_trips} round trips");
    let release = Instant::now();
    drop(attackers);
    let served = Trial::within(slower(Duration::from_secs(5)), || trial.try_login("v.after") == Some(1));
    let release = release.elapsed();
    assert!(served && release <= slower(Duration::from_secs(1)), "a login after {release:?}");
    format!(
        "{SOCKETS} sockets, {let_in} let in, {held} descriptors taken: {percent} % of a core, {lines} log lines at first and \
         {more_lines} in {:.0} s, login {:.0} ms after the release",
        lasted.as_secs_f64(),
        millis(release)
    )
}

#[test]
fn c08_few_descriptors_bound_the_connections() {
    run(&Plan::under("C08", &["prlimit", "--nofile=256:256"]), exhaust);
}

#[test]
fn c08_no_descriptors_left_cost_nothing() {
    run(&Plan::new("C08"), |trial| {
        // Once it runs, so that its own bound on connections is that of more descriptors.
        let pid = trial.pid().to_string();
        let (status, output) =
            support::run(Command::new("prlimit").args(["--nofile=256:256", "--pid", &pid]));
        assert!(status.success(), "{output}");
        exhaust(trial)
    });
}
