//! Pauses of accepting, for the times when the kernel cannot accept connections.

/// A pause of accepting.
#[derive(Default)]
pub(super) struct Acceptor {
    is_paused: bool,
    /// `true` if the timer that ends a pause is set. The timer may outlast the pause.
    timer_is_set: bool,
}

impl Acceptor {
    /// Pauses accepting; returns whether the timer that ends the pause must be set.
    pub fn pause(&mut self) -> bool {
        self.is_paused = true;
        !std::mem::replace(&mut self.timer_is_set, true)
    }

    /// Notes that the timer has fired.
    pub fn timer_fired(&mut self) {
        self.timer_is_set = false;
    }

    /// Ends the pause; returns whether there was one.
    pub fn resume(&mut self) -> bool {
        std::mem::take(&mut self.is_paused)
    }
}
