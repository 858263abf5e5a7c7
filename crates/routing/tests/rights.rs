//! Every operation against every right of an access map (C24): what is denied is answered so once and has no effect,
//! what is allowed is not denied, and the order in which rights were named says nothing.
#![cfg(test)]

mod support;

use bytes::Bytes;
use elbus_protocol::mask::Syntax;
use elbus_protocol::{ErrorCode, Masks, Op, OpBody, QoS, RpcFrame};
use elbus_routing::{BROKER_NAME, ClientAaa, ClientKind, MaskError, Router};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use support::{Make, Peer, Received, router};

const TOPIC: &str = "topic";
const TARGET: &str = "target";

/// The five rights, in the order of [`RIGHTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    P2p,
    Publish,
    Subscribe,
    Broadcast,
    Exclude,
}

const RIGHTS: [Right; 5] = [Right::P2p, Right::Publish, Right::Subscribe, Right::Broadcast, Right::Exclude];

impl Right {
    fn syntax(self) -> Syntax {
        if matches!(self, Self::P2p | Self::Broadcast) { Syntax::Peer } else { Syntax::Topic }
    }

    fn deny(self, rights: ClientAaa) -> ClientAaa {
        match self {
            Self::P2p => rights.deny_p2p(),
            Self::Publish => rights.deny_publish(),
            Self::Subscribe => rights.deny_subscribe(),
            Self::Broadcast => rights.deny_broadcast(),
            Self::Exclude => rights.deny_exclude(),
        }
    }

    fn allow(self, rights: ClientAaa, masks: &[&str]) -> Result<ClientAaa, MaskError> {
        let masks = masks.iter().copied();
        match self {
            Self::P2p => rights.p2p(masks),
            Self::Publish => rights.publish(masks),
            Self::Subscribe => rights.subscribe(masks),
            Self::Broadcast => rights.broadcast(masks),
            Self::Exclude => rights.exclude(masks),
        }
    }

    fn may(self, rights: &ClientAaa, text: &str) -> bool {
        match self {
            Self::P2p => rights.may_message(text),
            Self::Publish => rights.may_publish(text),
            Self::Subscribe => rights.may_subscribe(text),
            Self::Broadcast => rights.may_broadcast(text),
            Self::Exclude => rights.may_exclude(text),
        }
    }
}

/// What is made of one right.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Denied,
    /// Masks, none of which has anything to do with the operation.
    Elsewhere,
    /// Masks that begin as what the operation names does, and match only what is deeper.
    Narrower,
    /// Exactly what the operation names, behind a denial.
    Named,
    Everything,
}

const RULES: [Rule; 5] = [Rule::Denied, Rule::Elsewhere, Rule::Narrower, Rule::Named, Rule::Everything];

impl Rule {
    fn of(self, right: Right, text: &str) -> ClientAaa {
        let separator = right.syntax().separator();
        let deeper = format!("{text}{separator}deeper");
        let (one, deep) = if separator == '/' { ("+", "#") } else { ("?", "*") };
        let below = format!("{text}{separator}{deep}");
        let new = ClientAaa::new();
        match self {
            Self::Denied => Ok(right.deny(new)),
            Self::Elsewhere => right.allow(new, &["elsewhere", "to", &format!("x{separator}{deep}")]),
            Self::Narrower => right.allow(new, &[&deeper, &below, &[one; 3].join(&separator.to_string())]),
            Self::Named => right.allow(right.deny(new), &[text]),
            Self::Everything => right.allow(new, &[deep]),
        }
        .unwrap()
    }

    fn allows(self) -> bool {
        matches!(self, Self::Named | Self::Everything)
    }
}

fn rpc(frame: &RpcFrame<'_>) -> Vec<u8> {
    frame.encode()
}

/// Each operation with the right it needs; taking back what one asked for needs none.
fn operations(payloads: &[Vec<u8>]) -> Vec<(OpBody<'_>, Option<Right>)> {
    let mut all = vec![
        (OpBody::Subscribe(Masks::new(TOPIC)), Some(Right::Subscribe)),
        (OpBody::Unsubscribe(Masks::new(TOPIC)), None),
        (OpBody::Exclude(Masks::new(TOPIC)), Some(Right::Exclude)),
        (OpBody::Unexclude(Masks::new(TOPIC)), None),
    ];
    for payload in payloads {
        all.extend([
            (OpBody::Publish { topic: TOPIC, payload }, Some(Right::Publish)),
            (OpBody::PublishFor { topic: TOPIC, receiver: TARGET, payload }, Some(Right::Publish)),
            (OpBody::Broadcast { mask: TARGET, payload }, Some(Right::Broadcast)),
            (OpBody::Message { target: TARGET, payload }, Some(Right::P2p)),
            (OpBody::Message { target: BROKER_NAME, payload }, Some(Right::P2p)),
        ]);
    }
    all
}

/// What an operation names.
fn named<'a>(body: &OpBody<'a>) -> &'a str {
    match *body {
        OpBody::Publish { topic, .. } | OpBody::PublishFor { topic, .. } => topic,
        OpBody::Message { target, .. } => target,
        OpBody::Broadcast { mask, .. } => mask,
        OpBody::Subscribe(masks)
        | OpBody::Unsubscribe(masks)
        | OpBody::Exclude(masks)
        | OpBody::Unexclude(masks) => masks.as_str(),
        OpBody::Nop => "",
    }
}

/// How the operation comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over a socket, acknowledged.
    Asked,
    /// Over a socket, with no acknowledgement wanted.
    Silent,
    /// By a client in the process.
    Local,
}

fn local(router: &Router, peer: &mut Peer, body: OpBody<'_>) -> Result<(), ErrorCode> {
    let payload = Bytes::copy_from_slice(body.payload());
    let result = router.handle_local(&mut peer.sender, &body, false, Some(&payload));
    peer.sender.flush();
    result
}

/// Carries out one operation under one rule; true if it was denied. All effects are looked at.
fn one(body: OpBody<'_>, needed: Option<Right>, right: Right, rule: Rule, way: Way) -> bool {
    let case = format!("{body:?} with {right:?} {rule:?}, {way:?}");
    let router = router();
    let mut broker = Peer::join(&router, BROKER_NAME, Make { kind: ClientKind::Internal, ..Make::default() });
    let mut target = Peer::join(&router, TARGET, Make::default());
    target.subscribe(&router, &[TOPIC]);
    let rights = rule.of(right, named(&body));
    let mut peer = Peer::join(&router, "peer", Make { rights: Some(rights), ..Make::default() });
    let denied = needed == Some(right) && !rule.allows();
    let expected = if denied { Err(ErrorCode::Access) } else { Ok(()) };
    // Twice: the second verdict comes from the route cache.
    for _ in 0..2 {
        match way {
            // Checks that the acknowledgement is one.
            Way::Asked => assert_eq!(peer.ask(&router, body), expected, "{case}"),
            Way::Silent => {
                peer.handle(&router, 1, QoS::No, body, true);
                assert!(!peer.take().iter().any(Received::is_ack), "{case}");
            }
            Way::Local => assert_eq!(local(&router, &mut peer, body), expected, "{case}"),
        }
        let copies = target.take().len() + broker.take().len();
        assert_eq!(copies, usize::from(!denied && !body.payload().is_empty()), "{case}");
    }
    let denials = peer.sender.take_denials();
    let kind = if body.op() == Op::PublishFor { Op::Publish } else { body.op() };
    match &denials[..] {
        [] => assert!(!denied, "{case}: nobody is told"),
        [only] => {
            assert_eq!((only.op, &*only.target, only.count), (kind, named(&body), 2), "{case}");
            assert!(denied, "{case}");
        }
        _ => panic!("{case}: {denials:?}"),
    }
    assert_eq!(router.totals().denied, 2 * u64::from(denied), "{case}");

    // Neither did a denied subscription take, nor a denied exclusion.
    let publication = OpBody::Publish { topic: TOPIC, payload: b"probe" };
    assert_eq!(local(&router, &mut broker, publication), Ok(()));
    let subscribed = matches!(body, OpBody::Subscribe(_)) && !denied;
    assert_eq!(peer.take().len(), usize::from(subscribed), "{case}");
    let mut excluder =
        Peer::join(&router, "excluder", Make { rights: Some(rule.of(right, TOPIC)), ..Make::default() });
    if matches!(body, OpBody::Exclude(_)) && right != Right::Subscribe {
        excluder.subscribe(&router, &["#"]);
        let _ = excluder.ask(&router, body);
        assert_eq!(local(&router, &mut broker, publication), Ok(()));
        assert_eq!(excluder.take().len(), usize::from(denied), "{case}: an exclusion that was denied");
    }
    denied
}

#[test]
fn c24_every_operation_under_every_rule() {
    let payloads = [
        b"plain".to_vec(),
        rpc(&RpcFrame::Notification(b"n")),
        rpc(&RpcFrame::Request { id: 1, method: b"client.list", params: b"" }),
        rpc(&RpcFrame::Request { id: 0, method: b"test", params: b"" }),
        rpc(&RpcFrame::Reply { id: 1, result: b"forged" }),
    ];
    let operations = operations(&payloads);
    assert_eq!(operations.len(), 4 + payloads.len() * 5);
    let (mut verdicts, mut denials) = (0, 0);
    for (body, needed) in operations {
        for right in RIGHTS {
            for rule in RULES {
                for way in [Way::Asked, Way::Silent, Way::Local] {
                    denials += usize::from(one(body, needed, right, rule, way));
                    verdicts += 1;
                }
            }
        }
    }
    assert_eq!(verdicts, (4 + 5 * 5) * 5 * 5 * 3);
    // Three rules of five refuse, under one right of five, all but what takes something back.
    assert_eq!(denials, (2 + 5 * 5) * 3 * 3);
    println!("C24: {verdicts} verdicts, {denials} denied: 0x79 once each, no effect, told once a kind");
}

/// One call of the builder.
#[derive(Clone, Debug)]
enum Call {
    Deny(Right),
    Allow(Right, Vec<&'static str>),
}

fn call() -> impl Strategy<Value = Call> {
    let masks = |right: Right| {
        let words = match right.syntax() {
            Syntax::Topic => vec!["a", "a/b", "a/+", "a/#", "+/b", "#", "", ".broker/#"],
            Syntax::Peer => vec!["a", "a.b", "a.?", "a.*", "?.b", "*", ".broker", "peer%%0"],
        };
        vec(select(words), 0..3).prop_map(move |masks| Call::Allow(right, masks))
    };
    select(RIGHTS.to_vec())
        .prop_flat_map(move |right| prop_oneof![1 => Just(Call::Deny(right)), 2 => masks(right)])
}

fn build<'a>(calls: impl IntoIterator<Item = &'a Call>) -> ClientAaa {
    calls.into_iter().fold(ClientAaa::new(), |rights, call| match call {
        Call::Deny(right) => right.deny(rights),
        Call::Allow(right, masks) => right.allow(rights, masks).unwrap(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn c24_the_order_of_the_builders_calls_never_matters(
        (calls, shuffled) in vec(call(), 0..8).prop_flat_map(|calls| (Just(calls.clone()), Just(calls).prop_shuffle())),
    ) {
        let (one, other) = (build(&calls), build(&shuffled));
        for right in RIGHTS {
            let own = |call: &&Call| matches!(call, Call::Deny(of) | Call::Allow(of, _) if *of == right);
            let limited = calls.iter().any(|call| own(&call));
            let masks: Vec<&str> = calls
                .iter()
                .filter_map(|call| match call {
                    Call::Allow(of, masks) if *of == right => Some(masks.iter().copied()),
                    _ => None,
                })
                .flatten()
                .collect();
            let texts = match right.syntax() {
                Syntax::Topic => ["a", "a/b", "a/c", "b", "", "x/b", ".broker/info"],
                Syntax::Peer => ["a", "a.b", "a.c", "b", "x.b", ".broker", "peer%%0"],
            };
            for text in texts {
                // Nothing said allows all, naming masks beats denying, and masks add up. None of the texts has a
                // wildcard, so to be included is to be matched.
                let expected = !limited || masks.iter().any(|mask| right.syntax().matches(mask, text));
                prop_assert_eq!(right.may(&one, text), expected, "{:?} {:?} after {:?}", right, text, calls);
                prop_assert_eq!(right.may(&other, text), expected, "{:?} {:?} after {:?}", right, text, shuffled);
            }
        }
    }
}
