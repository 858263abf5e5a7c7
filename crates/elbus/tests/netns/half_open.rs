//! C35: the cable of a host is cut while its clients are idle, in the middle of a send, and logging in. Both ends
//! have to find out by themselves.

use crate::net::{Cut, Host, Lan, Namespace, can_have_hosts};
use crate::server::{
    Observer, PORT, PUBLISH, SUBSCRIBE_ACK, Server, client, greeted, logged_in, name_field, op,
};
use crate::support::pause;
use elbus::{Client, ClientError, Options, QoS, connect};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Clients of ours.
const OURS: [&str; 3] = ["ours.idle", "ours.sending", "ours.receiving"];
/// Clients that ping by hand.
const PINGERS: usize = 10;
/// Latest end of a client that pings, of any other, and of a login; from the last ping or the cut on.
const PINGING: Duration = Duration::from_millis(6_300);
const OTHERS: Duration = Duration::from_secs(12);
const LOGIN: Duration = Duration::from_millis(5_500);
/// What the broker's walk over its connections may add, four times a second; how late this machine was besides is
/// measured.
const WALK: Duration = Duration::from_millis(250);
/// Latest moment when our client knows: it looks once a second whether 12 s have passed in silence.
const OWN_END: Duration = Duration::from_secs(13);
/// When the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn c35_a_cable_cut_at_the_plug_is_noticed_by_both_ends() {
    cut_cable(Cut::Plug);
}

#[test]
fn c35_a_cable_cut_far_away_is_noticed_by_both_ends() {
    cut_cable(Cut::Far);
}

/// The first host is lost to the second, where the server is.
fn cut_cable(cut: Cut) {
    if !can_have_hosts() {
        return;
    }
    let lan = Lan::new(2);
    let [far, near] = &lan.hosts[..] else { unreachable!() };
    let server = Server::start(&near.namespace);
    let address = format!("10.77.0.2:{PORT}");
    let observer = Observer::new(&server);
    let idle_descriptors = server.descriptors();

    let ends = our_clients(far, &address);
    // Others, which never ping but one.
    let connect_as = |name: &str| logged_in(&far.namespace, &address, name);
    let mut idle = connect_as("raw.idle");
    let pinging: [_; PINGERS] = std::array::from_fn(|number| {
        let name = format!("raw.pinging.{number}");
        (connect_as(&name), name)
    });
    let mut half_frame = connect_as("raw.half-frame");
    half_frame.write_all(&op(PUBLISH, &[b'x'; 1_000])[..500]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = write_on(connect_as("raw.sending"), &stop, &sent);
    let mut subscriber = connect_as("raw.receiving");
    subscriber.write_all(&op(SUBSCRIBE_ACK, b"flood")).unwrap();
    let reader = read_on(subscriber, &received);
    let flooding = flood_from(observer.client.clone(), Arc::clone(&stop));

    // Two that log in, as slowly as a lost cable makes them; and one of ours that does so at somebody who greets.
    let logins = [0, 4].map(|length| begun_login(&far.namespace, &address, length));
    let login_ports = logins.each_ref().map(|stream| stream.local_addr().unwrap().port());

    assert!(observer.wait(PATIENCE, |seen| seen.len() == 7 + PINGERS).is_some());
    let moving = || (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    // A ping of the broker, and then the pause until the next: the worst moment for one who never pings. Its
    // acknowledgement may be held back for 40 ms.
    let mut ping = [0; 6];
    idle.read_exact(&mut ping).unwrap();
    assert_eq!(ping, [0; 6]);
    pause(Duration::from_millis(100));
    assert!(login_ports.iter().all(|port| server.is_connected(*port)), "the logins are under way");
    let (greeting, fake_address) = greeting_only(&near.namespace);
    let login = far.spawn(async move {
        let start = Instant::now();
        (connect(&fake_address, Options::new("ours.login")).await.err(), start.elapsed())
    });
    let fake = greeting.join().unwrap();
    // Last pings all over the time between two looks of the broker at its clock.
    let mut last_pings = BTreeMap::new();
    for (stream, name) in &pinging {
        (&*stream).write_all(&op(0, b"")).unwrap();
        last_pings.insert(name.as_str(), Instant::now());
        pause(Duration::from_millis(25));
    }
    let before = moving();
    assert!(before.0 > 0 && before.1 > 0, "frames were on their way: {before:?}");
    lan.cut(cut);
    let start = Instant::now();

    let mut names = [&OURS[..], &["raw.idle", "raw.half-frame", "raw.sending", "raw.receiving"]].concat();
    names.extend(last_pings.keys());
    let since: BTreeMap<_, _> =
        names.iter().map(|name| (*name, *last_pings.get(name).unwrap_or(&start))).collect();
    let absence = watch(&server, &observer, &since, &login_ports);
    stop.store(true, Ordering::Relaxed);
    let own: BTreeMap<_, _> = OURS
        .iter()
        .map_while(|_| ends.recv_timeout(PATIENCE.saturating_sub(start.elapsed())).ok())
        .map(|(name, end)| (name, end.duration_since(start)))
        .collect();
    let (own_login, own_login_time) = far.join(login);
    println!(
        "C35: cable cut ({cut:?}): {absence}; our own client noticed after at most {:.2?}, in a login after \
         {own_login_time:.2?}",
        own.values().max().copied().unwrap_or_default()
    );
    absence.check(names.len());
    let late = absence.late();
    assert_eq!(own.len(), OURS.len(), "never noticed: {own:?}");
    for (name, after) in &own {
        assert!(*after <= OWN_END + late, "{name} noticed after {after:?}");
    }
    assert!(matches!(own_login, Some(ClientError::Timeout(_))), "{own_login:?}");
    assert!(own_login_time <= LOGIN + late, "{own_login_time:?}");
    // What went wrong elsewhere is nothing to the one who stayed, and nothing is left behind.
    assert!(observer.client.is_open());
    flooding.join().unwrap();
    assert_eq!(server.descriptors(), idle_descriptors);
    drop((idle, pinging, half_frame, logins, fake));
    // Theirs end with the namespace; they are of no use to anybody.
    drop((writer, reader));
    drop(observer);
    server.stop();
}

/// Our clients on this host, which ping once a second: one idle, one that sends, one that receives. Returns when each
/// of them found its connection at an end.
fn our_clients(host: &Host, address: &str) -> Receiver<(&'static str, Instant)> {
    let clients = OURS.map(|name| client(host, address, Options::new(name)));
    let (ended, ends) = channel();
    for (name, client) in OURS.into_iter().zip(clients.clone()) {
        let ended = ended.clone();
        host.spawn(async move {
            client.closed().await;
            let _ = ended.send((name, Instant::now()));
        });
    }
    let [_, sending, receiving] = clients;
    host.spawn(async move {
        while sending.is_open() {
            let _ = sending.publish("from/ours", vec![7; 1_000], QoS::No);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let mut flood = receiving.subscribe(&["flood"]);
    host.spawn(async move { while flood.next().await.is_some() {} });
    ends
}

/// A connection that has said this many bytes of its login.
fn begun_login(namespace: &Namespace, address: &str, length: usize) -> TcpStream {
    let mut stream = greeted(namespace, address);
    let field = [&[0xEB, 1, 0], name_field("raw.login").as_slice()].concat();
    stream.write_all(&field[..length]).unwrap();
    stream
}

/// What was seen of clients that are cut off.
struct Absence<'a> {
    /// Time to the first absence of each.
    gone: BTreeMap<&'a str, Duration>,
    /// Time to the end of the last login.
    logins: Option<Duration>,
    longest_gap: Duration,
}

/// Looks until all are gone, or for as long as the test has patience. `since` says from when on each is counted.
fn watch<'a>(
    server: &Server,
    observer: &Observer,
    since: &BTreeMap<&'a str, Instant>,
    login_ports: &[u16],
) -> Absence<'a> {
    let start = Instant::now();
    let mut absence = Absence { gone: BTreeMap::new(), logins: None, longest_gap: Duration::ZERO };
    let mut looked = start;
    while (absence.gone.len() < since.len() || absence.logins.is_none()) && start.elapsed() < PATIENCE {
        let seen = observer.list();
        for (name, since) in since {
            if !seen.iter().any(|client| client.name == *name) {
                absence.gone.entry(name).or_insert_with(|| since.elapsed());
            }
        }
        if absence.logins.is_none() && !login_ports.iter().any(|port| server.is_connected(*port)) {
            absence.logins = Some(start.elapsed());
        }
        pause(Duration::from_millis(20));
        absence.longest_gap = absence.longest_gap.max(looked.elapsed());
        looked = Instant::now();
    }
    absence
}

impl Absence<'_> {
    /// What may come on top of each limit.
    fn late(&self) -> Duration {
        WALK + self.longest_gap
    }

    fn check(&self, expected: usize) {
        let Self { gone, logins, .. } = self;
        assert_eq!(gone.len(), expected, "never dropped: all but {gone:?}");
        for (name, after) in gone {
            let limit = if pings(name) { PINGING } else { OTHERS };
            assert!(
                *after <= limit + self.late(),
                "{name} was dropped after {after:?}, the limit is {limit:?}"
            );
        }
        assert!(logins.is_some_and(|after| after <= LOGIN + self.late()), "logins dropped after {logins:?}");
    }
}

impl fmt::Display for Absence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |pinging: bool| self.gone.iter().filter(move |(name, _)| pings(name) == pinging);
        let latest = |pinging: bool| of(pinging).map(|(_, after)| *after).max().unwrap_or_default();
        write!(
            f,
            "dropped after at most {:.2?} ({} that ping), {:.2?} ({} others), {:.2?} (logins), seen every {:.2?}",
            latest(true),
            of(true).count(),
            latest(false),
            of(false).count(),
            self.logins.unwrap_or_default(),
            self.longest_gap
        )
    }
}

/// Whether this client is sure to have pinged. One that always has something to send may never come to it.
fn pings(name: &str) -> bool {
    (name.starts_with("ours") && name != "ours.sending") || name.starts_with("raw.pinging")
}

/// Publishes as fast as the connection takes it, until it does not.
fn write_on(mut stream: TcpStream, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    thread::spawn(move || {
        let frame = op(PUBLISH, &[b"from/raw\0".as_slice(), &[7; 1_000]].concat());
        while !stop.load(Ordering::Relaxed) && stream.write_all(&frame).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
            pause(Duration::from_millis(2));
        }
    })
}

/// Reads whatever comes, until nothing does any more.
fn read_on(mut stream: TcpStream, received: &Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let received = Arc::clone(received);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(1..) = stream.read(&mut buffer) {
            received.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// Publishes for those who receive.
fn flood_from(client: Client, stop: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            client.publish("flood", vec![7; 1_000], QoS::No).unwrap();
            pause(Duration::from_millis(2));
        }
    })
}

/// Somebody at this host who greets whoever comes first, and no more.
fn greeting_only(namespace: &Namespace) -> (thread::JoinHandle<TcpStream>, String) {
    let listener = namespace.run(|| TcpListener::bind("10.77.0.2:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeting = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[0xEB, 1, 0]).unwrap();
        // The client's answer shows that it is in the middle of its login.
        stream.read_exact(&mut [0; 3]).unwrap();
        stream
    });
    (greeting, address)
}
