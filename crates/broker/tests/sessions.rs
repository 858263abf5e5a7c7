//! Life of a session under a paused clock: logins, deadlines, pings, slow readers, split input.
#![cfg(test)]
#![allow(clippy::unchecked_time_subtraction, reason = "constants, the smaller one taken off")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, BrokerOptions, Listener};
use elbus_routing::QueueLimits;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::frame::{
    ACKED, BROADCAST, EXCLUDE, Frame, GREETING, MESSAGE, PING, PUBLISH, PUBLISH_FOR, SUBSCRIBE, UNEXCLUDE,
    UNSUBSCRIBE, call, header, message, name_field, op, publish, subscribe,
};
use support::pipe::{PipeClient, Torrent, TorrentEnd, local_origin, own_origin, settle};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// The protocol's `t` in these tests.
const T: Duration = Duration::from_secs(5);
/// Deadlines are kept to this, the housekeeper's longest period.
const PERIOD: Duration = Duration::from_millis(251);

fn broker_with(options: BrokerOptions) -> Broker {
    Broker::builder().options(options).runtime(Handle::current()).build().unwrap()
}

fn broker() -> Broker {
    broker_with(BrokerOptions::default())
}

fn listener() -> Listener {
    Listener::unix("pipe").timeout(T)
}

/// Greeting and name.
fn login_bytes(name: &str) -> Vec<u8> {
    [&GREETING[..], &name_field(name)].concat()
}

#[track_caller]
fn assert_between(elapsed: Duration, least: Duration) {
    assert!(elapsed >= least && elapsed <= least + PERIOD, "{elapsed:?}, not {least:?}");
}

#[tokio::test(start_paused = true)]
async fn c32_a_login_may_be_cut_anywhere() {
    let broker = broker();
    let bytes = [login_bytes("v.split"), subscribe(7, "a/#")].concat();
    let expected = [0xEB, 1, 0, 1, 1, 0xFE, 7, 0, 0, 0, 1];
    let mut cuts = 0;
    for cut in 0..=bytes.len() {
        let mut client = PipeClient::connect(&broker, &listener());
        client.send(&bytes[..cut]).await;
        settle().await;
        client.send(&bytes[cut..]).await;
        assert_eq!(client.take(expected.len()).await, expected, "cut at {cut}");
        client.finish();
        assert_eq!(client.rest().await, b"", "cut at {cut}");
        cuts += 1;
    }
    assert_eq!(cuts, bytes.len() + 1);
    let mut client = PipeClient::connect(&broker, &listener());
    for byte in &bytes {
        client.send([*byte]).await;
        settle().await;
    }
    assert_eq!(client.take(expected.len()).await, expected, "byte by byte");
    println!("C32: a login cut at each of {cuts} places and byte by byte: the same answer");
}

#[tokio::test(start_paused = true)]
async fn c05_a_login_takes_t_in_all() {
    let broker = broker();
    let bytes = login_bytes("v.slow");
    let mut silences = 0;
    for prefix in 0..bytes.len() {
        let start = Instant::now();
        let mut client = PipeClient::connect(&broker, &listener());
        client.send(&bytes[..prefix]).await;
        let answered = client.rest().await;
        assert_between(start.elapsed(), T);
        let expected = if prefix < 3 { &[0xEB, 1, 0][..] } else { &[0xEB, 1, 0, 1] };
        assert_eq!(answered, expected, "silent after {prefix} bytes");
        silences += 1;
    }
    assert_eq!(silences, 11);
    println!(
        "C05: silent after each of {silences} beginnings of a login: closed after {T:?} of virtual time"
    );
}

#[tokio::test(start_paused = true)]
async fn c06_a_dripping_login_takes_no_longer() {
    let broker = broker();
    let mut worst = Duration::ZERO;
    for (pause_ms, least) in [(4_000, 2), (1_000, 5), (100, 48)] {
        let pause = Duration::from_millis(pause_ms);
        let long = login_bytes(&"n".repeat(200));
        let start = Instant::now();
        let mut client = PipeClient::connect(&broker, &listener());
        let mut sent = 0;
        for byte in &long {
            if !client.try_send([*byte]).await {
                break;
            }
            sent += 1;
            sleep(pause).await;
        }
        assert!(sent >= least && sent < long.len(), "{sent} bytes were dripped");
        // At the slowest drip the greeting is never whole.
        assert_eq!(client.rest().await, if sent < 3 { &[0xEB, 1, 0][..] } else { &[0xEB, 1, 0, 1] });
        // The end is noticed at the next drip.
        let elapsed = start.elapsed();
        assert!(elapsed >= T - PERIOD && elapsed <= T + PERIOD + pause, "{elapsed:?}");
        worst = worst.max(elapsed.saturating_sub(pause));
    }
    println!(
        "C06: logins of a byte each 4 s, 1 s, 0.1 s: closed after {worst:?} of virtual time at the latest"
    );
}

#[tokio::test(start_paused = true)]
async fn c07_of_too_many_logins_one_of_the_older_half_is_dropped_mute_ones_first() {
    const LIMIT: usize = 64;
    const OLDER: usize = LIMIT / 2;
    let broker = broker();
    let mut clients: Vec<_> = (0..LIMIT).map(|_| PipeClient::connect(&broker, &listener())).collect();
    for client in clients[..OLDER].iter_mut().step_by(2) {
        client.send([GREETING[0]]).await;
    }
    settle().await;
    let start = Instant::now();
    let _honest = PipeClient::login(&broker, &listener(), "v.honest").await;
    settle().await;
    let is_open = |client: &mut PipeClient| client.send_now(b"").is_some();
    let gone: Vec<_> = (0..LIMIT).filter(|index| !is_open(&mut clients[*index])).collect();
    assert!(matches!(gone[..], [index] if index % 2 == 1 && index < OLDER), "{gone:?}");
    // Once those have all spoken it is any of them, and not one of the newer ones, though they are mute.
    for index in (1..OLDER).step_by(2).filter(|index| *index != gone[0]) {
        clients[index].send([GREETING[0]]).await;
    }
    clients.push(PipeClient::connect(&broker, &listener()));
    settle().await;
    let _honest = PipeClient::login(&broker, &listener(), "v.honest2").await;
    settle().await;
    let gone: Vec<_> = (0..=LIMIT).filter(|index| !is_open(&mut clients[*index])).collect();
    assert!(gone.len() == 2 && gone.iter().all(|index| *index <= OLDER), "{gone:?}");
    assert_between(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn connections_are_limited_in_all_and_for_each_foreign_user() {
    let options = BrokerOptions { connections: 5, connections_per_peer: 2, ..BrokerOptions::default() };
    let broker = broker_with(options);
    let own = own_origin();
    let elbus_routing::PeerIdentity::Local { uid, gid } = own.identity else { panic!("{own:?}") };
    let foreign = || PipeClient::connect_as(&broker, &listener(), 1024, local_origin(uid + 1, gid));
    let mut first = foreign();
    let _second = foreign();
    assert_eq!(first.take(3).await, GREETING);
    assert_eq!(foreign().rest().await, b"", "a third of one foreign user");
    let mut ours = Vec::new();
    for _ in 0..3 {
        ours.push(PipeClient::connect(&broker, &listener()));
        assert_eq!(ours.last_mut().unwrap().take(3).await, GREETING, "the own user is not limited");
    }
    assert_eq!(PipeClient::connect(&broker, &listener()).rest().await, b"", "a sixth in all");
    drop(first);
    settle().await;
    assert_eq!(foreign().take(3).await, GREETING, "a place is free again");
}

#[tokio::test(start_paused = true)]
async fn the_broker_pings_every_half_t() {
    let broker = broker();
    let mut client = PipeClient::login(&broker, &listener(), "v.quiet").await;
    let start = Instant::now();
    let mut last = start;
    for number in 1..=20 {
        while client.next_read().is_none() {
            assert!(client.read(usize::MAX).await > 0);
        }
        assert_eq!(client.pings, number);
        let gap = last.elapsed();
        last = Instant::now();
        assert!(gap <= T / 2 + PERIOD, "{gap:?} before ping {number}");
        assert!(number == 1 || gap >= T / 2 - PERIOD, "{gap:?} before ping {number}");
    }
    assert!(start.elapsed() >= T / 2 * 18);
}

#[tokio::test(start_paused = true)]
async fn only_clients_that_pinged_are_dropped_for_silence() {
    let broker = broker();
    let mut pinging = PipeClient::login(&broker, &listener(), "v.pinging").await;
    let mut silent = PipeClient::login(&broker, &listener(), "v.silent").await;
    let mut regular = PipeClient::login(&broker, &listener(), "v.regular").await;
    assert_eq!(silent.ask(subscribe(1, "a")).await, 1);
    for _ in 0..5 {
        pinging.send(PING).await;
        regular.send(PING).await;
        assert!(!pinging.ends_within(T).await, "it pings every t");
    }
    pinging.send(PING).await;
    settle().await;
    let start = Instant::now();
    let mut waited = Duration::ZERO;
    while !pinging.ends_within(Duration::from_millis(50)).await {
        waited = start.elapsed();
        regular.send(PING).await;
        assert!(waited < T * 2, "still open");
    }
    assert_between(waited, T + T / 4 - Duration::from_millis(100));
    assert_eq!(silent.ask(subscribe(2, "b")).await, 1);
    assert_eq!(regular.ask(subscribe(2, "b")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_never_pings_stays() {
    let broker = broker();
    let mut listening = PipeClient::login(&broker, &listener(), "v.listening").await;
    let mut sender = PipeClient::login(&broker, &listener(), "v.sender").await;
    assert_eq!(listening.ask(subscribe(1, "news")).await, 1);
    assert!(!listening.ends_within(T * 100).await);
    assert_eq!(sender.ask(publish(1, "news", "late")).await, 1);
    assert_eq!(listening.frame().await, Frame::event(PUBLISH, &[b"v.sender", b"news", b"late"]));
}

#[tokio::test(start_paused = true)]
async fn c34_half_a_frame_not_continued_ends_the_connection_after_t() {
    let broker = broker();
    let frames = [message(1, "v.half", "x"), message(2, "v.half", vec![0; 40_000])];
    let large_limit = header(3, MESSAGE | ACKED, listener().frame_bytes);
    let mut cuts = 0;
    for (bytes, step) in [(&frames[0], 1), (&frames[1], 3_999), (&large_limit, 1)] {
        let end = if bytes.len() == large_limit.len() { bytes.len() + 1 } else { bytes.len() };
        for cut in (1..end).step_by(step) {
            let mut client = PipeClient::login(&broker, &listener(), "v.half").await;
            assert_eq!(client.ask(subscribe(1, "a")).await, 1);
            sleep(T * 2).await;
            client.send(&bytes[..cut]).await;
            let start = Instant::now();
            assert!(client.ends_within(T * 2).await, "cut at {cut} of {}", bytes.len());
            // Heard at the last tick of the clock at the earliest.
            assert!(start.elapsed() >= T - PERIOD && start.elapsed() <= T + PERIOD, "{:?}", start.elapsed());
            cuts += 1;
        }
    }
    assert!(cuts > 30, "{cuts}");
    println!("C34: time ran out in {cuts} places of a frame: closed after {T:?} each time, never in between");
}

#[tokio::test(start_paused = true)]
async fn c34_progress_keeps_a_slow_frame_alive() {
    let broker = broker();
    let small = message(1, "v.slow", "0123456789");
    let large = message(1, "v.slow", vec![b'x'; 40_000]);
    for (bytes, step) in [(small, 1), (large, 2_000)] {
        let mut client = PipeClient::login(&broker, &listener(), "v.slow").await;
        let start = Instant::now();
        for piece in bytes.chunks(step) {
            client.send(piece).await;
            sleep(T - Duration::from_millis(300)).await;
        }
        assert!(start.elapsed() > T * 15, "{:?}", start.elapsed());
        assert_eq!(client.frame().await, Frame::event(MESSAGE, &[b"v.slow", &bytes[9 + 7..]]));
        assert_eq!(client.ack(1).await, 1);
        client.finish();
        client.rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_is_closed_and_a_dripping_one_lives() {
    const FRAMES: u32 = 60;
    let broker = broker();
    let mut stalled = PipeClient::login_with(&broker, &listener(), "v.stalled", 1_000).await;
    let mut dripping = PipeClient::login_with(&broker, &listener(), "v.dripping", 1_000).await;
    let mut sender = PipeClient::login(&broker, &listener(), "v.sender").await;
    let payload = vec![b'x'; 1_000];
    for id in 0..FRAMES {
        assert_eq!(sender.ask(message(id, "v.stalled", &payload)).await, 1);
        assert_eq!(sender.ask(message(id, "v.dripping", &payload)).await, 1);
    }
    let start = Instant::now();
    let mut received = 0;
    let mut gone_after = None;
    while received < FRAMES {
        sleep(Duration::from_millis(500)).await;
        dripping.read(500).await;
        while let Some(frame) = dripping.next_read() {
            received += u32::from(frame != Frame::Ping && frame.payload() == payload);
        }
        if gone_after.is_none() && sender.ask(message(0, "v.stalled", "")).await == 0x71 {
            gone_after = Some(start.elapsed());
        }
    }
    let gone_after = gone_after.unwrap();
    // Asked every half second.
    assert!(
        gone_after >= Duration::from_secs(5) && gone_after <= Duration::from_millis(5_751),
        "{gone_after:?}"
    );
    assert!(start.elapsed() > Duration::from_secs(30), "it has dripped for long: {:?}", start.elapsed());
    // What the pipe held is all the stalled one ever sees; the frame in it is cut.
    assert_eq!(stalled.rest().await.len(), 1_000);
    assert_eq!(dripping.ask(subscribe(1, "a")).await, 1);
    assert_eq!(broker.stats().queued_bytes, 0);
}

/// A broker whose queues hold 80 frames: senders pause above 10 and go on below 5.
fn narrow_broker() -> Broker {
    broker_with(BrokerOptions {
        queue: QueueLimits { frames: 80, bytes: 1 << 20 },
        ..BrokerOptions::default()
    })
}

/// Fills the queue of `to` with acknowledged messages; returns how many were taken and the time it took.
async fn fill(sender: &mut PipeClient, to: &str, frames: u32) -> (usize, Duration) {
    let start = Instant::now();
    let mut codes = Vec::new();
    for id in 0..frames {
        codes.push(sender.ask(message(id, to, [b'x'; 100])).await);
    }
    let taken = codes.iter().take_while(|code| **code == 1).count();
    assert!(codes[..taken].iter().all(|code| *code == 0x01), "{codes:?}");
    assert!(codes[taken..].iter().all(|code| *code == 0x77), "{codes:?}");
    (taken, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_paused_once_and_then_told_77() {
    const FRAMES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(10);
    let broker = narrow_broker();
    let mut full = PipeClient::login_with(&broker, &listener(), "v.full", 50).await;
    let mut sender = PipeClient::login(&broker, &listener(), "v.sender").await;
    let mut other = PipeClient::login(&broker, &listener(), "v.other").await;
    let (taken, elapsed) = fill(&mut sender, "v.full", FRAMES).await;
    assert_eq!(taken, 80);
    assert!(elapsed >= PAUSE && elapsed <= PAUSE + Duration::from_millis(2), "{elapsed:?}");

    // The pause of this stall is spent: nobody is held up any more.
    let (taken, elapsed) = fill(&mut sender, "v.full", FRAMES).await;
    assert_eq!((taken, elapsed), (0, Duration::ZERO));
    let (taken, elapsed) = fill(&mut other, "v.full", FRAMES).await;
    assert_eq!((taken, elapsed), (0, Duration::ZERO));

    // Once the queue was low a stall is a new one.
    for _ in 0..80 {
        assert_eq!(full.frame().await, Frame::event(MESSAGE, &[b"v.sender", &[b'x'; 100]]));
    }
    let (taken, elapsed) = fill(&mut other, "v.full", FRAMES).await;
    assert_eq!(taken, 80);
    assert!(elapsed >= PAUSE && elapsed <= PAUSE + Duration::from_millis(2), "{elapsed:?}");
    assert_eq!(broker.stats().totals.refused, u64::from(4 * FRAMES - 160));
    assert_eq!(full.frame().await, Frame::event(MESSAGE, &[b"v.other", &[b'x'; 100]]), "it stays connected");
}

#[tokio::test(start_paused = true)]
async fn a_publication_is_dropped_for_the_full_receiver_alone() {
    const FRAMES: u32 = 300;
    let broker = narrow_broker();
    let mut full = PipeClient::login_with(&broker, &listener(), "v.full", 16).await;
    let mut sender = PipeClient::login(&broker, &listener(), "v.sender").await;
    // On both sides of the full one, in whatever order receivers are served.
    let mut healthy = Vec::new();
    for name in ["v.after", "v.before", "v.middle"] {
        healthy.push(PipeClient::login(&broker, &listener(), name).await);
    }
    // No whole publication fits into the pipe.
    assert_eq!(full.ask(subscribe(1, "news")).await, 1);
    for client in &mut healthy {
        assert_eq!(client.ask(subscribe(1, "news")).await, 1);
    }
    let start = Instant::now();
    for id in 0..FRAMES {
        assert_eq!(sender.ask(publish(id, "news", format!("{id}"))).await, 1);
        let broadcast = op(id, BROADCAST | ACKED, format!("v.*\0{id}"));
        sender.send(broadcast).await;
        assert_eq!(sender.frame().await, Frame::event(BROADCAST, &[b"v.sender", format!("{id}").as_bytes()]));
        assert_eq!(sender.ack(id).await, 1);
        for client in &mut healthy {
            let text = format!("{id}");
            assert_eq!(client.frame().await, Frame::event(PUBLISH, &[b"v.sender", b"news", text.as_bytes()]));
            assert_eq!(client.frame().await, Frame::event(BROADCAST, &[b"v.sender", text.as_bytes()]));
        }
    }
    assert!(start.elapsed() <= Duration::from_millis(12), "{:?}", start.elapsed());
    // The full one gets the first 80 in order and stays.
    for index in 0..80 {
        let text = format!("{}", index / 2);
        let expected = if index % 2 == 0 {
            Frame::event(PUBLISH, &[b"v.sender", b"news", text.as_bytes()])
        } else {
            Frame::event(BROADCAST, &[b"v.sender", text.as_bytes()])
        };
        assert_eq!(full.frame().await, expected, "frame {index}");
    }
    assert_eq!(full.ask(subscribe(9, "more")).await, 1);
    assert_eq!(broker.stats().totals.refused, u64::from(2 * FRAMES - 80));
}

#[tokio::test(start_paused = true)]
async fn unread_acknowledgements_pause_the_reader_and_none_is_lost() {
    const OPERATIONS: u32 = 10_000;
    let broker = narrow_broker();
    let mut client = PipeClient::login_with(&broker, &listener(), "v.flood", 1_000).await;
    let mut bytes = Vec::new();
    for id in 0..OPERATIONS {
        bytes.extend(op(id, UNSUBSCRIBE | ACKED, "a"));
    }
    // Writes as much as it can without reading.
    let mut sent = 0;
    while let Ok(true) =
        tokio::time::timeout(Duration::from_millis(500), client.try_send(&bytes[sent..=sent])).await
    {
        sent += 1;
    }
    let swallowed = (sent - client.unread_by_broker()) / 10;
    // 80 acknowledgements queued, 166 in the pipe, and what was read along with them.
    assert!(swallowed < 500, "the broker took {swallowed} operations unread");
    assert!(broker.stats().queued_bytes <= 256 << 10, "{}", broker.stats().queued_bytes);
    let mut next = 0;
    while next < OPERATIONS {
        while sent < bytes.len() {
            let piece = &bytes[sent..bytes.len().min(sent + 1)];
            if tokio::time::timeout(Duration::ZERO, client.try_send(piece)).await.is_err() {
                break;
            }
            sent += 1;
        }
        client.read(usize::MAX).await;
        while let Some(frame) = client.next_read() {
            assert_eq!(frame, Frame::Ack { id: next, code: 1 });
            next += 1;
        }
    }
    assert_eq!(client.ask(subscribe(OPERATIONS, "a")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn whom_the_broker_does_not_read_is_not_silent() {
    let broker = narrow_broker();
    let mut client = PipeClient::login_with(&broker, &listener(), "v.slow", 200).await;
    client.send(PING).await;
    let bytes: Vec<u8> = (0..2_000).flat_map(|id| op(id, UNSUBSCRIBE | ACKED, "a")).collect();
    let (mut sent, mut acks, start) = (0, 0, Instant::now());
    // It always has more to say, and reads its acknowledgements, but no faster than this.
    while start.elapsed() < T * 6 {
        sent += client.send_now(&bytes[sent..]).expect("it was closed");
        client.read_now(4);
        while let Some(frame) = client.next_read() {
            acks += u32::from(frame != Frame::Ping);
        }
        sleep(Duration::from_millis(200)).await;
    }
    assert!(acks > 50 && sent < bytes.len(), "{acks} acknowledgements, {sent} bytes");
    assert_eq!(broker.clients(|name| name == "v.slow").len(), 1);
}

/// Sessions that use everything, each from the name on, alone on its broker but for `v.peer`.
fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    let own = "v.conv";
    let messages = [
        message(1, own, "one"),
        op(2, MESSAGE, "v.conv\0unacked"),
        op(3, 0xC0 | MESSAGE, "v.conv\0realtime"),
        message(4, "v.nobody", "x"),
        message(0, own, ""),
        op(5, BROADCAST | ACKED, "v.?\0all"),
    ];
    let topics = [
        op(1, SUBSCRIBE | ACKED, "a/+\0b/#\0c"),
        publish(2, "a/x", "1"),
        publish(3, "b/x/y", "two\0parts"),
        op(4, EXCLUDE | ACKED, "a/no"),
        publish(5, "a/no", "3"),
        op(6, UNEXCLUDE | ACKED, "a/no"),
        publish(7, "a/no", "4"),
        op(8, PUBLISH_FOR | ACKED, "c\0v.conv\0five"),
        op(9, PUBLISH_FOR | ACKED, "c\0v.peer\0six"),
        op(10, UNSUBSCRIBE | ACKED, "a/+\0c"),
        publish(11, "a/x", "7"),
    ];
    let odd = [
        PING.to_vec(),
        [&[9, 9, 9, 9, 0, 200, 0, 0, 0][..], &message(1, own, "behind a ping that lies")].concat(),
        message(2, own, vec![b'L'; 300]),
        subscribe(3, ""),
        publish(4, "", "empty topic"),
        op(5, SUBSCRIBE | ACKED, "x/".repeat(200)),
        publish(6, ".broker/warn", "forged"),
    ];
    let calls = [
        call(1, ".broker", "test", b""),
        call(2, ".broker", "no.such", b"\x80"),
        op(3, MESSAGE, b".broker\0\x01\x03\0\0\0info\0"),
        message(4, ".broker", b"\x01cut short"),
        call(5, ".broker", "benchmark.test", &[b'B'; 200]),
    ];
    let malformed = [message(1, own, "good"), op(2, MESSAGE | ACKED, "no NUL"), message(3, own, "never")];
    [
        ("messages", messages.concat()),
        ("topics", topics.concat()),
        ("odd", odd.concat()),
        ("calls", calls.concat()),
        ("malformed", malformed.concat()),
        ("unknown operation", [message(1, own, "good"), op(2, 0x3E, "x")].concat()),
        ("large", [message(1, own, vec![b'L'; 20_000]), message(2, own, "small")].concat()),
    ]
    .map(|(what, frames)| (what, [login_bytes(own), frames].concat()))
    .into()
}

/// Plays `pieces` with a pause in between and returns all the broker says, pings aside.
async fn play(broker: &Broker, pieces: &[&[u8]], pause: Duration) -> (Vec<u8>, Vec<Frame>) {
    let mut client = PipeClient::connect(broker, &listener());
    for piece in pieces {
        // One malformed frame ends the connection before all is sent.
        client.try_send(piece).await;
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
    // What `.broker` answers comes from a task of its own.
    settle().await;
    client.finish();
    let login = client.take(5).await;
    let mut frames = Vec::new();
    while let Some(frame) = client.try_frame().await {
        frames.push(frame);
    }
    // Nothing is promised of the order of its answers and of acknowledgements.
    let order = |frame: &Frame| match frame {
        Frame::Event { body, .. } => u8::from(body.starts_with(b".broker\0")),
        _ => 0,
    };
    frames.sort_by_key(order);
    (login, frames)
}

#[tokio::test(start_paused = true)]
async fn c32_sessions_do_not_depend_on_how_their_bytes_are_cut() {
    let broker = broker();
    broker.init_default_core_rpc().unwrap();
    let _peer = PipeClient::login(&broker, &listener(), "v.peer").await;
    let long = std::env::var_os("ELBUS_LONG").is_some();
    let (mut runs, mut writes) = (0, 0);
    for (what, bytes) in conversations() {
        let whole = play(&broker, &[&bytes], Duration::ZERO).await;
        assert_eq!(whole.0, [0xEB, 1, 0, 1, 1]);
        assert!(!whole.1.is_empty(), "{what}");
        // At each byte; of the one long session at a hundred, unless there is time.
        let step = if long || bytes.len() < 2_000 { 1 } else { bytes.len() / 100 };
        for cut in (1..bytes.len()).step_by(step) {
            let (front, back) = bytes.split_at(cut);
            for pause in [0, 1, 100] {
                let cut_up = play(&broker, &[front, back], Duration::from_millis(pause)).await;
                assert_eq!(cut_up, whole, "{what} cut at {cut}, pause {pause} ms");
                runs += 1;
            }
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        let pauses: &[u64] = if bytes.len() > 2_000 && !long { &[1] } else { &[0, 1, 100] };
        for &pause in pauses {
            let dripped = play(&broker, &bytewise, Duration::from_millis(pause)).await;
            assert_eq!(dripped, whole, "{what} byte by byte, pause {pause} ms");
            writes += bytewise.len();
        }
    }
    assert!(runs > 2_500 && writes > 20_000, "{runs} cuts, {writes} writes of one byte");
    println!(
        "C32: {runs} cuts with pauses of 0, 1, 100 ms and {writes} writes of one byte: the same answers"
    );
}

#[tokio::test(start_paused = true)]
async fn c53_an_hour_that_passes_at_once_ends_nobody_who_lives() {
    const CLIENTS: usize = 30;
    const HOUR: Duration = Duration::from_secs(3_600);
    let broker = broker();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = PipeClient::login(&broker, &listener(), &format!("v.c{number}")).await;
        // A third listens, a third pings, a third is in the middle of a frame.
        match number % 3 {
            0 => assert_eq!(client.ask(subscribe(1, "news")).await, 1),
            1 => client.send(PING).await,
            _ => client.send(&message(2, "v.c0", "whole in the end")[..20]).await,
        }
        clients.push(client);
    }
    // Two who are dead: one pings no more, one reads no more.
    let silent = PipeClient::login(&broker, &listener(), "v.silent").await;
    silent.send(PING).await;
    let stalled = PipeClient::login_with(&broker, &listener(), "v.stalled", 100).await;
    assert_eq!(clients[0].ask(message(3, "v.stalled", [b'x'; 500])).await, 1);
    let mut late = PipeClient::connect(&broker, &listener());
    assert_eq!(late.take(3).await, GREETING);
    settle().await;

    tokio::time::advance(HOUR).await;
    // Everybody wakes at once, in whatever order; the living go on as before.
    sleep(Duration::from_millis(100)).await;
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 3 {
            1 => client.send(PING).await,
            2 => client.send(&message(2, "v.c0", "whole in the end")[20..]).await,
            _ => {}
        }
    }
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        if number % 3 == 2 {
            assert_eq!(client.ack(2).await, 1, "client {number}");
        }
        assert_eq!(client.ask(publish(4, "none", "")).await, 1, "client {number}");
    }
    late.send(login_bytes("v.late")).await;
    assert_eq!(late.take(2).await, [1, 1], "a login under way goes on");
    // The dead are found in the usual time.
    let start = Instant::now();
    while !broker.clients(|name| name == "v.silent" || name == "v.stalled").is_empty() {
        for client in clients.iter().skip(1).step_by(3) {
            client.send(PING).await;
        }
        sleep(Duration::from_millis(100)).await;
        assert!(start.elapsed() < T * 3, "the dead are still there");
    }
    let gone = start.elapsed();
    drop(stalled);
    assert_eq!(broker.clients(|name| name.starts_with("v.c")).len(), CLIENTS);
    println!(
        "C53: {CLIENTS} of {CLIENTS} living clients outlived an hour that passed at once, 2 of 2 dead ones were closed {gone:?} after it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_leaves_the_thread_to_others() {
    const READS: usize = 600;
    const EXCHANGES: u32 = 10;
    // The last is what one exchange may take, in reads of at most 64 KiB: a few turns of three tasks. Reads of
    // a large frame are cheap, and a turn has about twenty of them.
    let units: [(&str, Vec<u8>, usize); 4] = [
        ("pings", PING.repeat(1_000), 20),
        ("messages", op(0, MESSAGE, "v.sink\0x").repeat(1_000), 20),
        ("messages to nobody", op(0, MESSAGE, "v.nobody\0x").repeat(1_000), 20),
        ("large messages", op(0, MESSAGE, [b"v.sink\0", &vec![b'x'; 200_000][..]].concat()), 20 * 10),
    ];
    for (what, unit, allowed) in units {
        let broker = broker();
        let mut first = PipeClient::login(&broker, &listener(), "v.first").await;
        let mut second = PipeClient::login(&broker, &listener(), "v.second").await;
        let sink = Torrent::new("v.sink", vec![0], 1);
        broker.attach(Arc::new(TorrentEnd(sink)), own_origin(), &listener());
        let flood = Torrent::new("v.flood", unit, READS);
        broker.attach(Arc::new(TorrentEnd(Arc::clone(&flood))), own_origin(), &listener());
        let mut worst = 0;
        for id in 0..EXCHANGES {
            let before = flood.reads.load(Ordering::Relaxed);
            assert_eq!(first.ask(message(id, "v.second", "x")).await, 1);
            assert_eq!(second.frame().await, Frame::event(MESSAGE, &[b"v.first", b"x"]));
            worst = worst.max(flood.reads.load(Ordering::Relaxed) - before);
        }
        while flood.reads.load(Ordering::Relaxed) <= READS {
            settle().await;
        }
        eprintln!("{what}: at most {worst} reads within one exchange");
        assert!(worst <= allowed && worst < READS, "{what}: {worst} reads within one exchange");
    }
}
