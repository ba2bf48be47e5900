//! Where a worker runs. On the processor of whoever asks, a single request costs no wake-up of another processor. But while
//! somebody reads ahead or writes back much, both can work at once: so for long requests a worker gives its seat up until a
//! short one comes.

use crate::mount::processors;

/// A request with more content than this, in bytes, is a long one.
const LONG: usize = 64 * 1024;

/// A worker's place.
#[derive(Debug)]
pub(super) struct Seat {
    processor: usize,
    is_taken: bool,
    /// Those that there were when it began.
    all: Vec<usize>,
}

impl Seat {
    /// Takes the seat on this processor.
    pub(super) fn take(processor: usize) -> Self {
        let mut seat = Self {
            processor,
            is_taken: false,
            all: processors::online(),
        };
        seat.sit(true);
        seat
    }

    /// A request with so much content has come.
    pub(super) fn suit(&mut self, content: usize) {
        let is_short = content <= LONG;
        if is_short != self.is_taken {
            self.sit(is_short);
        }
    }

    fn sit(&mut self, is_taken: bool) {
        let own = [self.processor];
        let processors = if is_taken { &own[..] } else { &self.all };
        if let Err(error) = processors::sit_on(processors) {
            // Offline, or not allowed for this process: it runs where it may.
            log::debug!("a worker does not sit on {processors:?}: {error}");
        }
        self.is_taken = is_taken;
    }
}
