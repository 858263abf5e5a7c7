//! One thing that is measured, by `times.rs` and by `instructions.rs`, here and in `crates/routing`.

/// A round of work that can be repeated for ever.
pub(crate) struct Unit {
    /// As it is in the tables.
    pub(crate) name: &'static str,
    /// What a round is to deliver: frames decoded, queued, acknowledged, as the name says. Figures are given for one.
    pub(crate) frames: usize,
    /// Makes what the rounds work on. A round says how many frames it saw come out.
    pub(crate) set_up: fn() -> Box<dyn FnMut() -> usize>,
}

impl Unit {
    /// Everything set up, and one round done and looked at.
    pub(crate) fn start(&self) -> impl FnMut() -> usize {
        let mut round = (self.set_up)();
        assert_eq!(round(), self.frames, "{}", self.name);
        round
    }
}
