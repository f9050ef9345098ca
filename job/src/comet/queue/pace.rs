//! Whether a comet keeps up: what reading on is decided by.

/// How one comet keeps up with what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It is owed nothing, or little while it is silent: reading on or not makes no difference to it.
    Idle,
    /// It is owed less than a quarter of what it may be.
    KeepsUp,
    /// It is owed more, and answers.
    Lags,
    /// It is owed more and is silent.
    Hangs,
}
