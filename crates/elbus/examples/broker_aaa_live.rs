//! A broker whose access map is edited while it runs, by lines on its standard input.
//!
//! ```text
//! cargo run --example broker_aaa_live -- [ADDRESS]
//! ```
//!
//! `ADDRESS` is a socket path or `HOST:PORT`, 127.0.0.1:7777 unless given. The lines:
//!
//! | line | does |
//! | --- | --- |
//! | `allow NAME [RIGHT...]` | lets NAME in; all is allowed that no RIGHT narrows |
//! | `forbid NAME` | takes NAME out of the map |
//! | `kick NAME` | ends its connection: with its next login the edits hold |
//! | `show` | prints the names in the map |
//!
//! RIGHT is one of `hosts`, `p2p`, `publish`, `subscribe`, `broadcast` and `exclude`, an equals sign, and networks or
//! masks between commas; none at all denies it, as in `allow test publish=news/#,log subscribe= hosts=::1/128`. It ends
//! with its input, or at Ctrl-C.
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use elbus::{AaaMap, Broker, ClientAaa, Listener};
use std::error::Error;
use std::io::stdin;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// A library cannot choose the allocator of its program: choose one that scales, on musl above all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    // Empty: nobody can log in yet.
    let rights = AaaMap::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let broker = Broker::builder().build()?;
    let address = broker.listen(Listener::new(address.parse()?).aaa(rights.clone())).await?;
    println!("listening on {address}");

    let mut lines = input();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = tokio::signal::ctrl_c() => None,
            _ = terminate.recv() => None,
        };
        let Some(line) = line else { break };
        match obey(&line, &rights, &broker) {
            Ok(answer) => println!("{answer}"),
            // A mask or a network that is not valid: the map is as it was.
            Err(error) => println!("refused: {error}"),
        }
    }
    broker.close().await;
    Ok(())
}

/// The lines of standard input, read by a thread of their own: the program does not wait for it at its end.
fn input() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn obey(line: &str, rights: &AaaMap, broker: &Broker) -> Result<String, Box<dyn Error>> {
    let mut words = line.split_whitespace();
    let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(match verb {
        "allow" => {
            let entry = words.try_fold(ClientAaa::new(), narrow)?;
            rights.lock().insert(name.to_owned(), entry);
            format!("{name} may log in")
        }
        "forbid" => match rights.lock().remove(name) {
            Some(_) => format!("{name} may not log in again"),
            None => format!("{name} is not in the map"),
        },
        "kick" => {
            broker.force_disconnect(name)?;
            format!("{name} was disconnected")
        }
        "show" => {
            let mut names: Vec<_> = rights.lock().keys().cloned().collect();
            names.sort();
            format!("in the map: {}", names.join(" "))
        }
        _ => "allow NAME [RIGHT...] | forbid NAME | kick NAME | show".to_owned(),
    })
}

/// Adds one right, as text, to an entry. Naming masks beats denying, so denying first is what none at all means.
fn narrow(entry: ClientAaa, right: &str) -> Result<ClientAaa, Box<dyn Error>> {
    let (right, list) = right.split_once('=').ok_or_else(|| format!("{right:?} has no ="))?;
    let items = || list.split(',').filter(|item| !item.is_empty());
    Ok(match right {
        "hosts" => entry.hosts(items().map(str::parse).collect::<Result<Vec<_>, _>>()?),
        "p2p" => entry.deny_p2p().p2p(items())?,
        "publish" => entry.deny_publish().publish(items())?,
        "subscribe" => entry.deny_subscribe().subscribe(items())?,
        "broadcast" => entry.deny_broadcast().broadcast(items())?,
        "exclude" => entry.deny_exclude().exclude(items())?,
        _ => return Err(format!("{right:?} is no right").into()),
    })
}
