//! From a kind of load to the code that makes it. The settings are in `scenario.rs`.

use crate::failure::Failure;
use crate::figure::Outcome;
use crate::scenario::{Scenario, Settings};
use crate::setup::Target;
use crate::{exchange, flood, idle, rate, subscriptions};

/// Puts `target` under the load of `settings` once.
pub(crate) fn execute(target: &Target, settings: &Settings) -> Result<Outcome, Failure> {
    match settings.scenario {
        Scenario::Message | Scenario::Publish | Scenario::Broadcast => flood::run(target, settings),
        // Towards a broker the load of `relay` is that of `message`.
        Scenario::Relay => flood::run(target, &Settings { scenario: Scenario::Message, ..settings.clone() }),
        Scenario::Acked | Scenario::RoundTrip | Scenario::Broker => exchange::run(target, settings),
        Scenario::Rate => rate::run(target, settings),
        Scenario::Subscriptions => subscriptions::run(target, settings),
        Scenario::Idle => idle::run(target, settings),
    }
}
