//! What is the broker's alone: C28.

use crate::frame::{ACKED, Frame, PUBLISH, PUBLISH_FOR, op, publish, subscribe};
use crate::trial::{Plan, run};

#[test]
fn c28_nobody_announces_in_the_brokers_name() {
    run(&Plan::new("C28"), |trial| {
        let mut listener = trial.login("v.listener");
        assert_eq!(listener.ask(subscribe(1, "#")), 1);
        assert_eq!(listener.ask(subscribe(2, ".broker/#")), 1);
        let mut forger = trial.login("v.forger");
        let mut forged = 0;
        for topic in [".broker/warn", ".broker/info", ".broker/x", ".broker/", ".broker/a/b"] {
            assert_eq!(forger.ask(publish(1, topic, b"\x82\xa1s\xa8shutdown\xa1t\x01")), 0x79, "{topic}");
            let to_one = op(2, PUBLISH_FOR | ACKED, format!("{topic}\0v.listener\0x"));
            assert_eq!(forger.ask(to_one), 0x79, "publish-for {topic}");
            // No answer was asked for, none comes.
            forger.send(op(3, PUBLISH, format!("{topic}\0x")));
            assert_eq!(forger.until_fence(), []);
            forged += 3;
        }
        let mut refused = 0;
        for name in [".broker", ".broker%%0", ".x", "."] {
            assert_eq!(trial.try_login(name), Some(0x72), "{name}");
            refused += 1;
        }
        // What only looks alike is free.
        assert_eq!(forger.ask(publish(4, ".brokers", "x")), 1);
        assert_eq!(forger.ask(publish(5, "a/.broker/warn", "x")), 1);
        let heard = listener.until_fence();
        let forgeries = heard.iter().filter(
            |frame| matches!(frame, Frame::Event { body, .. } if body.starts_with(b"v.forger\0.broker/")),
        );
        assert_eq!(forgeries.count(), 0);
        let honest = heard
            .iter()
            .filter(|frame| matches!(frame, Frame::Event { body, .. } if body.starts_with(b"v.forger\0")));
        assert_eq!(honest.count(), 2, "{heard:?}");
        let announced = heard.iter().filter(|frame| {
            matches!(frame, Frame::Event { body, .. } if body.starts_with(b".broker\0.broker/info\0"))
        });
        assert_eq!(announced.count(), 1, "that the forger has come");
        assert_eq!((forged, refused), (15, 4));
        forger.leave();
        listener.leave();
        format!(
            "{forged} forged announcements denied, none delivered; {refused} logins under reserved names refused"
        )
    });
}
