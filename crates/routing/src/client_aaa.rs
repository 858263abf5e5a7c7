//! One client's permissions. They are copied when the client connects; `aaa_map.rs` holds what later logins
//! get.

use crate::rule::{MaskError, Rule};
use crate::{HostRule, Origin, PeerIdentity};
use elbus_protocol::mask::Syntax;
use ipnet::IpNet;
use std::sync::{Arc, LazyLock};

/// Who may connect over a UNIX socket: what is set must be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRule {
    /// User of the connecting process.
    pub uid: Option<u32>,
    /// Group of the connecting process.
    pub gid: Option<u32>,
}

impl PeerRule {
    /// True if this peer may connect. Where anything is required, a network peer may not.
    pub fn allows(self, identity: PeerIdentity) -> bool {
        match identity {
            PeerIdentity::Local { uid, gid } => {
                self.uid.is_none_or(|wanted| wanted == uid) && self.gid.is_none_or(|wanted| wanted == gid)
            }
            PeerIdentity::Remote(_) => self == Self::default(),
        }
    }
}

/// What one client may do.
///
/// A new one allows everything. Each right is narrowed by naming masks (every call adds some) or by denying it;
/// the order of the calls never matters, and naming masks beats denying.
///
/// ```
/// use elbus_routing::ClientAaa;
/// let rights = ClientAaa::new()
///     .hosts(["127.0.0.0/8".parse()?])
///     .publish(["news/#"])?
///     .p2p(["test"])?
///     .deny_subscribe()
///     .deny_broadcast();
/// assert!(rights.may_publish("news/today") && !rights.may_publish("news"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Cloning is cheap: the rules are shared.
#[derive(Clone, Debug)]
pub struct ClientAaa {
    hosts: HostRule,
    peer: PeerRule,
    p2p: Right,
    publish: Right,
    subscribe: Right,
    broadcast: Right,
    exclude: Right,
}

/// A rule and the masks it was made of.
#[derive(Clone, Debug)]
struct Right {
    syntax: Syntax,
    masks: Arc<Vec<String>>,
    rule: Arc<Rule>,
}

static ANY: LazyLock<Arc<Rule>> = LazyLock::new(|| Arc::new(Rule::any()));

impl Right {
    fn any(syntax: Syntax) -> Self {
        Self { syntax, masks: Arc::default(), rule: Arc::clone(&ANY) }
    }

    fn extend<'a>(&mut self, masks: impl IntoIterator<Item = &'a str>) -> Result<(), MaskError> {
        let mut all = Vec::clone(&self.masks);
        all.extend(masks.into_iter().map(str::to_owned));
        self.rule = Arc::new(Rule::masks(self.syntax, all.iter().map(String::as_str))?);
        self.masks = Arc::new(all);
        Ok(())
    }
}

impl Default for ClientAaa {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! rights {
    ($($(#[$doc:meta])* $right:ident, $(#[$deny_doc:meta])* $deny:ident, $(#[$may_doc:meta])* $may:ident = $check:ident;)+) => {
        impl ClientAaa {
            $(
                $(#[$doc])*
                pub fn $right<'a>(mut self, masks: impl IntoIterator<Item = &'a str>) -> Result<Self, MaskError> {
                    self.$right.extend(masks)?;
                    Ok(self)
                }

                $(#[$deny_doc])*
                #[must_use]
                pub fn $deny(mut self) -> Self {
                    // No mask can fail, so the error cannot occur.
                    let _ = self.$right.extend([]);
                    self
                }

                $(#[$may_doc])*
                pub fn $may(&self, text: &str) -> bool {
                    self.$right.rule.$check(text)
                }
            )+
        }
    };
}

rights! {
    /// Messages only to clients whose name one of these peer masks matches.
    p2p,
    /// No messages, unless masks are named too.
    deny_p2p,
    /// True if a message to this name is allowed.
    may_message = allows;

    /// Publications only to topics one of these topic masks matches.
    publish,
    /// No publications, unless masks are named too.
    deny_publish,
    /// True if a publication to this topic is allowed.
    may_publish = allows;

    /// Subscriptions only to masks that lie within these topic masks.
    subscribe,
    /// No subscriptions, unless masks are named too.
    deny_subscribe,
    /// True if everything this topic mask can match may be subscribed to.
    may_subscribe = includes;

    /// Broadcasts only to masks that lie within these peer masks.
    broadcast,
    /// No broadcasts, unless masks are named too.
    deny_broadcast,
    /// True if everything this peer mask can match may be reached by a broadcast.
    may_broadcast = includes;

    /// Exclusions only of masks that lie within these topic masks.
    exclude,
    /// No exclusions, unless masks are named too.
    deny_exclude,
    /// True if everything this topic mask can match may be excluded.
    may_exclude = includes;
}

impl ClientAaa {
    /// Allows everything, from everywhere.
    pub fn new() -> Self {
        Self {
            hosts: HostRule::any(),
            peer: PeerRule::default(),
            p2p: Right::any(Syntax::Peer),
            publish: Right::any(Syntax::Topic),
            subscribe: Right::any(Syntax::Topic),
            broadcast: Right::any(Syntax::Peer),
            exclude: Right::any(Syntax::Topic),
        }
    }

    /// Network clients only from these networks; none means nobody by network. UNIX peers are not concerned.
    #[must_use]
    pub fn hosts(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.hosts = HostRule::networks(networks.into_iter().collect());
        self
    }

    /// Only this user or group, as the kernel gave it at connect; refuses every network client.
    #[must_use]
    pub const fn peer(mut self, peer: PeerRule) -> Self {
        self.peer = peer;
        self
    }

    /// True if a client may connect from there.
    pub fn may_connect(&self, origin: &Origin) -> bool {
        self.peer.allows(origin.identity)
            && origin.address.is_none_or(|address| self.hosts.allows(address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientKind;

    #[test]
    fn order_never_matters_and_deny_then_allow_works() {
        let one = ClientAaa::new().deny_publish().publish(["news/#"]).unwrap().publish(["x"]).unwrap();
        let two = ClientAaa::new().publish(["x"]).unwrap().publish(["news/#"]).unwrap().deny_publish();
        for rights in [one, two] {
            for (topic, allowed) in [("news/a", true), ("x", true), ("news", false), ("y", false)] {
                assert_eq!(rights.may_publish(topic), allowed, "{topic}");
            }
        }
    }

    #[test]
    fn a_mask_is_not_its_own_text() {
        let rights = ClientAaa::new().subscribe(["news/+"]).unwrap().broadcast(["grp.?"]).unwrap();
        assert!(!rights.may_subscribe("news/#") && rights.may_subscribe("news/+"));
        let rights = rights.exclude(["news/+"]).unwrap();
        assert!(!rights.may_exclude("news/#") && rights.may_exclude("news/a"));
        assert!(!rights.may_broadcast("grp.*") && rights.may_broadcast("grp.a"));
        let denied = ClientAaa::new().deny_subscribe().deny_exclude().deny_p2p().deny_broadcast();
        assert!(!denied.may_subscribe("a") && !denied.may_exclude("a"));
        assert!(!denied.may_message(".broker") && !denied.may_broadcast("a"));
    }

    #[test]
    fn hosts_and_peers_decide_at_connect() {
        let tcp = Origin {
            kind: ClientKind::Tcp,
            identity: PeerIdentity::Remote([127, 0, 0, 1].into()),
            address: Some("127.0.0.1:5".parse().unwrap()),
            port: None,
        };
        let unix = Origin {
            kind: ClientKind::LocalIpc,
            identity: PeerIdentity::Local { uid: 7, gid: 8 },
            address: None,
            port: None,
        };
        let nobody = ClientAaa::new().hosts([]);
        assert!(!nobody.may_connect(&tcp) && nobody.may_connect(&unix));
        for (peer, allowed) in [
            (PeerRule { uid: Some(7), gid: None }, true),
            (PeerRule { uid: Some(8), gid: None }, false),
            (PeerRule { uid: Some(7), gid: Some(8) }, true),
            (PeerRule { uid: None, gid: Some(9) }, false),
        ] {
            assert_eq!(ClientAaa::new().peer(peer).may_connect(&unix), allowed, "{peer:?}");
            assert!(!ClientAaa::new().peer(peer).may_connect(&tcp));
        }
    }

    #[test]
    fn a_mask_beyond_the_limits_is_an_error() {
        assert!(ClientAaa::new().publish([&*"a/".repeat(200)]).is_err());
        assert!(ClientAaa::new().p2p(["a\0b"]).is_err());
    }
}
