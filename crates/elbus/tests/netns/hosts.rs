//! C26: which addresses the rule of an access map admits, by clients with those addresses, and which users of UNIX
//! sockets.

use crate::net::{Host, Lan, can_have_hosts};
use crate::support::raw::Raw;
use elbus::{AaaMap, Broker, ClientAaa, Listener, Options, PeerRule, connect};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

/// Codes of logins.
const DONE: u8 = 0x01;
const DENIED: u8 = 0x79;

/// Logs in from a host over TCP and leaves.
fn try_login(address: &str, name: &str) -> u8 {
    Raw::tcp(address).log_in(name)
}

/// Networks as a rule names them, and which of the clients' addresses they admit: IPv4, private IPv6, link-local
/// IPv6, IPv4 loopback, IPv6 loopback.
const RULES: &[(&str, &[&str], [bool; 5])] = &[
    ("v4.any", &["0.0.0.0/0"], [true, false, false, true, false]),
    ("v6.any", &["::/0"], [false, true, true, false, true]),
    ("any", &["0.0.0.0/0", "::/0"], [true, true, true, true, true]),
    ("v4.host", &["10.77.0.2/32"], [true, false, false, false, false]),
    ("v4.other", &["10.77.0.3/32"], [false, false, false, false, false]),
    ("v4.net", &["10.77.0.0/24"], [true, false, false, false, false]),
    ("v4.beside", &["10.77.0.4/30"], [false, false, false, false, false]),
    ("v4.within", &["10.77.0.0/30"], [true, false, false, false, false]),
    ("v6.host", &["fd77::2/128"], [false, true, false, false, false]),
    ("v6.other", &["fd77::3/128"], [false, false, false, false, false]),
    ("v6.net", &["fd77::/64"], [false, true, false, false, false]),
    ("v6.link", &["fe80::/10"], [false, false, true, false, false]),
    ("v6.link.host", &["fe80::77:2/128"], [false, false, true, false, false]),
    // A rule is of one family: an IPv4 peer is an IPv4 peer, however the listener sees it.
    ("mapped", &["::ffff:10.77.0.2/128"], [false, false, false, false, false]),
    ("mapped.all", &["::ffff:0:0/96"], [false, false, false, false, false]),
    ("local", &["127.0.0.0/8", "::1/128"], [false, false, false, true, true]),
    ("none", &[], [false, false, false, false, false]),
];

#[test]
fn c26_a_host_rule_means_the_same_on_both_stacks() {
    if !can_have_hosts() {
        return;
    }
    let lan = Lan::new(2);
    let [server, client] = &lan.hosts[..] else { unreachable!() };
    let map = AaaMap::new();
    for (name, networks, _) in RULES {
        let networks = networks.iter().map(|network| network.parse().unwrap());
        map.lock().insert((*name).to_owned(), ClientAaa::new().hosts(networks));
    }
    map.lock().insert("uid".to_owned(), ClientAaa::new().peer(PeerRule { uid: Some(0), gid: None }));
    map.lock().insert("gid".to_owned(), ClientAaa::new().peer(PeerRule { uid: None, gid: Some(0) }));

    // The broker's threads are on the first host as the thread that builds it.
    let broker = server.namespace.run(|| Broker::builder().build().unwrap());
    let listen = |address: &str| {
        let (broker, listener) = (broker.clone(), Listener::tcp(address).aaa(map.clone()));
        server
            .block_on(async move { broker.listen(listener).await.unwrap() })
            .rsplit_once(':')
            .unwrap()
            .1
            .to_owned()
    };
    // `[::]` takes IPv4 too, whose addresses it sees mapped into IPv6.
    let (v4, v6) = (listen("0.0.0.0:0"), listen("[::]:0"));
    let zone = client.namespace.run(|| index_of("eth0"));

    let mut logins = 0_usize;
    let mut admitted = 0_usize;
    for (name, _, expected) in RULES {
        let [by_v4, by_v6, by_link, by_v4_loopback, by_v6_loopback] = *expected;
        for (from, address, expected) in [
            (client, format!("10.77.0.1:{v4}"), by_v4),
            (client, format!("10.77.0.1:{v6}"), by_v4),
            (client, format!("[fd77::1]:{v6}"), by_v6),
            (client, format!("[fe80::77:1%{zone}]:{v6}"), by_link),
            (server, format!("127.0.0.1:{v4}"), by_v4_loopback),
            (server, format!("127.0.0.1:{v6}"), by_v4_loopback),
            (server, format!("[::1]:{v6}"), by_v6_loopback),
        ] {
            let code = from.namespace.run(|| try_login(&address, name));
            assert_eq!(code, if expected { DONE } else { DENIED }, "{name} to {address}");
            logins += 1;
            admitted += usize::from(expected);
        }
    }
    // Who is who on a UNIX socket is nothing a network client can prove.
    for name in ["uid", "gid"] {
        assert_eq!(client.namespace.run(|| try_login(&format!("10.77.0.1:{v4}"), name)), DENIED);
        assert_eq!(server.namespace.run(|| try_login(&format!("127.0.0.1:{v4}"), name)), DENIED);
    }
    // Our own client takes the zone in the address too, as a number or by name.
    for address in [format!("[fe80::77:1%{zone}]:{v6}"), format!("tcp://fe80::77:1%eth0:{v6}")] {
        let connected = client.block_on(async move { connect(&address, Options::new("v6.link")).await });
        client.block_on(async move { connected.unwrap().close() });
    }
    assert_eq!(logins, RULES.len() * 7);
    assert!(broker.clients(|name| name != ".broker").len() <= 1, "all have left");
    println!(
        "C26: {} rules x 7 ways in (IPv4, mapped, IPv6, zone, loopback): {admitted} of {logins} logins admitted, \
         all as ruled",
        RULES.len()
    );
    server.block_on(async move { broker.close().await });
}

/// The number of an interface, which stands for its name as the zone of an address.
fn index_of(interface: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{interface}")).unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Rules by user and group, and which of [`PEERS`] they admit.
const PEER_RULES: &[(&str, PeerRule, [bool; 4])] = &[
    ("anybody", PeerRule { uid: None, gid: None }, [true, true, true, true]),
    ("root", PeerRule { uid: Some(0), gid: None }, [true, true, false, false]),
    ("user", PeerRule { uid: Some(65_534), gid: None }, [false, false, true, true]),
    ("group", PeerRule { uid: None, gid: Some(65_534) }, [false, true, false, true]),
    ("root.group", PeerRule { uid: Some(0), gid: Some(65_534) }, [false, true, false, false]),
    ("both", PeerRule { uid: Some(65_534), gid: Some(65_534) }, [false, false, false, true]),
    ("nobody", PeerRule { uid: Some(12_345), gid: None }, [false, false, false, false]),
];

/// User and group of those who connect.
const PEERS: [(u32, u32); 4] = [(0, 0), (0, 65_534), (65_534, 0), (65_534, 65_534)];

#[test]
fn c26_a_peer_rule_goes_by_the_user_the_kernel_names() {
    if !can_have_hosts() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("elbus-hosts-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.join("bus.sock");
    let map = AaaMap::new();
    for (name, rule, _) in PEER_RULES {
        // Networks do not concern a UNIX peer, not even none.
        map.lock().insert((*name).to_owned(), ClientAaa::new().peer(*rule).hosts([]));
    }
    let host = Host::new();
    let broker = Broker::builder().build().unwrap();
    let (listening, listener) = (broker.clone(), Listener::unix(&socket).mode(0o666).aaa(map));
    host.block_on(async move { listening.listen(listener).await }).unwrap();

    let mut admitted = 0;
    for (number, (uid, gid)) in PEERS.into_iter().enumerate() {
        for (name, _, expected) in PEER_RULES {
            let code = as_user(uid, gid, || Raw::unix(&socket).log_in(name));
            assert_eq!(code, if expected[number] { DONE } else { DENIED }, "{name} from {uid}:{gid}");
            admitted += usize::from(expected[number]);
        }
    }
    let logins = PEERS.len() * PEER_RULES.len();
    println!(
        "C26: {} rules x {} users: {admitted} of {logins} logins admitted",
        PEER_RULES.len(),
        PEERS.len()
    );
    host.block_on(async move { broker.close().await });
    fs::remove_dir_all(&folder).unwrap();
}

/// Runs code on a thread that belongs to another user, as far as the kernel is concerned.
fn as_user<T: Send>(uid: u32, gid: u32, code: impl FnOnce() -> T + Send) -> T {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let run = move || {
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        code()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}
