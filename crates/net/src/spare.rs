//! Things that are used again instead of made anew.

use std::cell::{Cell, RefCell};

/// What nobody needs just now, the last used on top. It holds as many as were in use at once lately, whatever number that is:
/// see [`Spare::settle`].
#[derive(Debug)]
pub struct Spare<T> {
    kept: RefCell<Vec<T>>,
    /// The fewest that were there since it last settled: so many nobody needed.
    unused: Cell<usize>,
}

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self { kept: RefCell::default(), unused: Cell::new(0) }
    }
}

impl<T> Spare<T> {
    /// The one used last; `None` where all are in use.
    pub fn take(&self) -> Option<T> {
        let mut kept = self.kept.borrow_mut();
        let taken = kept.pop();
        self.unused.set(self.unused.get().min(kept.len()));
        taken
    }

    /// Keeps one for the next who takes.
    pub fn give(&self, used: T) {
        self.kept.borrow_mut().push(used);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of half of those that were not needed since the last call. To be called a few times a second: what a burst took
    /// is gone seconds after it, and a steady load never finds its own gone.
    pub fn settle(&self) {
        let mut kept = self.kept.borrow_mut();
        let gone = self.unused.get() / 2;
        kept.drain(..gone);
        if gone > 0 && kept.capacity() > 4 * kept.len() {
            kept.shrink_to_fit();
        }
        self.unused.set(kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_took_goes_and_what_is_in_use_stays() {
        let spare = Spare::default();
        assert_eq!(spare.take(), None);
        (0..100).for_each(|n| spare.give(n));
        spare.settle();
        assert_eq!(spare.len(), 100, "they were in use until just now");
        // Ten at a time are needed from here on.
        for _ in 0..10 {
            let taken: Vec<_> = (0..10).map(|_| spare.take().unwrap()).collect();
            assert_eq!(taken[0], 99, "the last used is used first");
            taken.into_iter().rev().for_each(|n| spare.give(n));
            spare.settle();
        }
        assert_eq!(spare.len(), 11);
        (0..10).for_each(|_| spare.settle());
        assert_eq!(spare.len(), 1, "one stays for whoever comes now and then");
    }
}
