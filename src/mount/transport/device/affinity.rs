//! Keeps a worker on the processor of the program it answers, and has the program go on there: so that nobody is woken on
//! another processor, which takes longer than to answer.

use super::whereabouts::Whereabouts;
use crate::mount::processors::{Place, Seat};
use crate::mount::transport::handover::{Guard, Handover};

/// A worker and the program it answers.
#[derive(Debug)]
pub(super) struct Affinity<'a> {
    seat: Seat,
    handover: Handover<'a>,
    whereabouts: Whereabouts,
    has_tried: bool,
    has_met: bool,
}

impl<'a> Affinity<'a> {
    /// Of the calling thread.
    pub(super) fn new(guard: &'a Guard) -> Self {
        Self {
            seat: Seat::default(),
            handover: guard.worker(),
            whereabouts: Whereabouts::default(),
            has_tried: false,
            has_met: false,
        }
    }

    /// Whether the program has asked for the next thing while the last answer was handed over.
    pub(super) const fn has_met(&self) -> bool {
        self.has_met
    }

    /// Whether the worker stands back now.
    pub(super) const fn stands_back(&self) -> bool {
        self.handover.stands_back()
    }

    /// Whether the worker stood back when it handed the last answer over.
    pub(super) const fn has_tried(&self) -> bool {
        self.has_tried
    }

    /// An answer is about to be sent, to a program that `waits` for one after the other, or not.
    pub(super) fn begin(&mut self, waits: bool) {
        let place = if waits {
            self.whereabouts.place(self.seat.given().len())
        } else {
            None
        };
        if let Some(place) = place
            && self.handover.may_stand_back()
        {
            self.seat.sit(Place::At(self.seat.given()[place]));
        }
        self.handover.begin(place.is_some());
        // To sit where the program is and not to stand back would send it away.
        if waits && !self.handover.stands_back() {
            self.seat.sit(Place::Anywhere);
        }
    }

    /// It has been sent. `is_there` says whether the next request is.
    pub(super) fn end(&mut self, is_there: impl FnOnce() -> bool) {
        (self.has_tried, self.has_met) = (self.handover.stands_back(), false);
        if self.has_tried {
            self.has_met = is_there();
            self.handover.end(self.has_met);
            let processors = self.seat.given().len();
            self.whereabouts.learn(self.has_met, processors);
        }
    }

    /// There is no answer to be handed over now.
    pub(super) fn pass(&mut self) {
        (self.has_tried, self.has_met) = (false, false);
        self.handover.leave();
    }

    /// The worker answers others, or nobody.
    pub(super) fn leave(&mut self) {
        self.pass();
        self.seat.sit(Place::Anywhere);
    }
}
