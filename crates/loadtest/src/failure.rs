//! Why a run could not be done, as one line of text. Lost frames are no failure of this kind: they are counted
//! (`sequence.rs`) and make a problem of the outcome (`figure.rs`).

use std::fmt;

/// One line that says what was tried and why it failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Puts in front of an error what was being done.
pub(crate) trait Context<T> {
    /// The value, or a [`Failure`] that begins with `what`.
    fn context<S: fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context<S: fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}
