//! C35: the cable of a host is cut while its clients are idle, in the middle of a send, and logging in. Both ends
//! have to find out by themselves.

use crate::net::{Cut, Lan, Namespace, can_have_hosts};
use crate::server::{
    Observer, PORT, PUBLISH, SUBSCRIBE_ACK, Server, client, greeted, logged_in, name_field, op,
};
use crate::support::pause;
use elbus::{Client, ClientError, Options, QoS, connect};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

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

    // Clients of ours, which ping once a second.
    let ours = ["ours.idle", "ours.sending", "ours.receiving"];
    let clients = ours.map(|name| client(far, &address, Options::new(name)));
    let (ended, ends) = channel();
    for (name, client) in ours.into_iter().zip(clients.clone()) {
        let ended = ended.clone();
        far.spawn(async move {
            client.closed().await;
            let _ = ended.send((name, Instant::now()));
        });
    }
    let sending = clients[1].clone();
    far.spawn(async move {
        while sending.is_open() {
            let _ = sending.publish("from/ours", vec![7; 1_000], QoS::No);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let receiving = clients[2].clone();
    let mut flood = receiving.subscribe(&["flood"]);
    far.spawn(async move { while flood.next().await.is_some() {} });

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
    let logins = [0, 4].map(|length| {
        let mut stream = greeted(&far.namespace, &address);
        let field = [&[0xEB, 1, 0], name_field("raw.login").as_slice()].concat();
        stream.write_all(&field[..length]).unwrap();
        stream
    });
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

    // The first absence of each.
    let mut gone = BTreeMap::new();
    let mut names = [&ours[..], &["raw.idle", "raw.half-frame", "raw.sending", "raw.receiving"]].concat();
    names.extend(last_pings.keys());
    let mut login_gone = None;
    let (mut looked, mut longest_gap) = (Instant::now(), Duration::ZERO);
    while (gone.len() < names.len() || login_gone.is_none()) && start.elapsed() < PATIENCE {
        let seen = observer.list();
        for name in names.iter().filter(|name| !seen.iter().any(|client| client.name == **name)) {
            let since = last_pings.get(name).unwrap_or(&start);
            gone.entry(*name).or_insert_with(|| since.elapsed());
        }
        if login_gone.is_none() && !login_ports.iter().any(|port| server.is_connected(*port)) {
            login_gone = Some(start.elapsed());
        }
        pause(Duration::from_millis(20));
        longest_gap = longest_gap.max(looked.elapsed());
        looked = Instant::now();
    }
    let late = WALK + longest_gap;
    stop.store(true, Ordering::Relaxed);
    let own: BTreeMap<_, _> = (0..ours.len())
        .map_while(|_| ends.recv_timeout(PATIENCE.saturating_sub(start.elapsed())).ok())
        .map(|(name, end)| (name, end.duration_since(start)))
        .collect();
    let (own_login, own_login_time) = far.join(login);
    let pings = |name: &str| name.starts_with("ours") || name.starts_with("raw.pinging");
    let latest =
        |pinging: bool| gone.iter().filter(|(name, _)| pings(name) == pinging).map(|(_, after)| *after).max();
    println!(
        "C35: cable cut ({cut:?}), {} clients idle and sending: dropped after at most {:.2?} of {} that ping, {:.2?} \
         of others, {:.2?} of logins; our own client noticed after at most {:.2?}, in a login {own_login_time:.2?}; \
         looked at least every {longest_gap:.2?}",
        gone.len(),
        latest(true).unwrap_or_default(),
        names.iter().filter(|name| pings(name)).count(),
        latest(false).unwrap_or_default(),
        login_gone.unwrap_or_default(),
        own.values().max().copied().unwrap_or_default()
    );

    assert_eq!(gone.len(), names.len(), "never dropped: {gone:?}");
    for (name, after) in &gone {
        let limit = if pings(name) { PINGING } else { OTHERS };
        assert!(*after <= limit + late, "{name} was dropped after {after:?}, the limit is {limit:?}");
    }
    assert!(login_gone.is_some_and(|after| after <= LOGIN + late), "logins dropped after {login_gone:?}");
    assert_eq!(own.len(), ours.len(), "never noticed: {own:?}");
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
