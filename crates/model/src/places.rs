//! Whose connections a small server keeps, where there are more than it can: no address has them all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of one server. `H` is by what one of them is told to end.
#[derive(Debug)]
pub struct Places<H> {
    all: usize,
    each: usize,
    taken: Mutex<Taken<H>>,
}

#[derive(Debug)]
struct Taken<H> {
    next: u64,
    /// By number, which is by age.
    open: BTreeMap<u64, Open<H>>,
}

#[derive(Debug)]
struct Open<H> {
    whose: IpAddr,
    answering: bool,
    handle: H,
}

/// One connection's place, free again once this is dropped.
#[derive(Debug)]
pub struct Seat<H> {
    places: Arc<Places<H>>,
    number: u64,
}

/// While a request is being answered.
#[derive(Debug)]
pub struct Answering<H>(Arc<Seat<H>>);

impl<H> Places<H> {
    /// `all` at once, `each` of them for one address.
    #[must_use]
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::new(Taken { next: 0, open: BTreeMap::new() }) })
    }

    /// Lets a connection in; who has to end for it comes with it. Where its address has its share, the oldest of that address
    /// goes that waits for a request. Where all places are taken, the oldest that waits of the address that has most, or one
    /// that is being answered, if that address has more than the newcomer's would. `None`: nobody goes.
    pub fn take(self: &Arc<Self>, whose: IpAddr, handle: H) -> Option<(Arc<Seat<H>>, Option<H>)> {
        let mut taken = self.taken();
        let own = taken.count(whose);
        let leaves = if own >= self.each {
            Some(taken.oldest(|open| open.whose == whose && !open.answering)?)
        } else if taken.open.len() >= self.all {
            Some(taken.of_the_greediest(own)?)
        } else {
            None
        };
        let instead_of = leaves.and_then(|number| taken.open.remove(&number)).map(|open| open.handle);
        let number = taken.next;
        taken.next += 1;
        taken.open.insert(number, Open { whose, answering: false, handle });
        drop(taken);
        Some((Arc::new(Seat { places: self.clone(), number }), instead_of))
    }

    /// How many are taken.
    #[must_use]
    pub fn taken_now(&self) -> usize {
        self.taken().open.len()
    }

    fn taken(&self) -> MutexGuard<'_, Taken<H>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H> Taken<H> {
    fn count(&self, whose: IpAddr) -> usize {
        self.open.values().filter(|open| open.whose == whose).count()
    }

    fn oldest(&self, is_so: impl Fn(&Open<H>) -> bool) -> Option<u64> {
        self.open.iter().find(|(_, open)| is_so(open)).map(|(number, _)| *number)
    }

    /// Who goes for an address that has `own`.
    fn of_the_greediest(&self, own: usize) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.open.values().for_each(|open| *counts.entry(open.whose).or_default() += 1);
        let (greediest, most) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        self.oldest(|open| open.whose == greediest && !open.answering)
            .or_else(|| self.oldest(|open| open.whose == greediest).filter(|_| most > own + 1))
            .or_else(|| self.oldest(|open| !open.answering))
    }
}

impl<H> Seat<H> {
    /// Notes that a request is being answered, until what is returned is dropped.
    #[must_use]
    pub fn answering(self: &Arc<Self>) -> Answering<H> {
        self.note(true);
        Answering(self.clone())
    }

    fn note(&self, answering: bool) {
        if let Some(open) = self.places.taken().open.get_mut(&self.number) {
            open.answering = answering;
        }
    }
}

impl<H> Drop for Seat<H> {
    fn drop(&mut self) {
        // What was replaced is gone already; its handle is dropped once the lock is free.
        let _gone = self.places.taken().open.remove(&self.number);
    }
}

impl<H> Drop for Answering<H> {
    fn drop(&mut self) {
        self.0.note(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn an_address_replaces_its_own_oldest_that_waits_and_nobody_elses() {
        let places = Places::new(8, 2);
        let (first, _) = places.take(ip(1), "first").unwrap();
        let (second, _) = places.take(ip(1), "second").unwrap();
        let (_other, _) = places.take(ip(2), "other").unwrap();
        let _answering = first.answering();
        let (third, instead_of) = places.take(ip(1), "third").unwrap();
        assert_eq!(instead_of, Some("second"));
        let answering = third.answering();
        assert!(places.take(ip(1), "fourth").is_none(), "both are being answered");
        drop(second);
        assert!(places.take(ip(1), "fourth").is_none(), "it was gone already");
        drop(answering);
        let (_fifth, instead_of) = places.take(ip(1), "fifth").unwrap();
        assert_eq!(instead_of, Some("third"));
        assert_eq!(places.taken_now(), 3);
    }

    #[test]
    fn whoever_has_most_makes_place_for_whoever_has_few() {
        let places = Places::new(4, 3);
        let greedy: Vec<_> = (0..3).map(|_| places.take(ip(1), 1).unwrap().0).collect();
        let _busy: Vec<_> = greedy.iter().map(Seat::answering).collect();
        let (modest, _) = places.take(ip(2), 2).unwrap();
        let (_third, instead_of) = places.take(ip(3), 3).unwrap();
        assert_eq!(instead_of, Some(1), "even one that is being answered");
        let _busy_too = modest.answering();
        let (_fourth, instead_of) = places.take(ip(4), 4).unwrap();
        assert_eq!(instead_of, Some(1), "rather than one of those who have one alone");
        let (_fifth, instead_of) = places.take(ip(5), 5).unwrap();
        assert!(matches!(instead_of, Some(3 | 4)), "where all have one, one that waits: {instead_of:?}");
        assert_eq!(places.taken_now(), 4);
    }

    #[test]
    fn where_all_have_one_and_all_are_being_answered_nobody_is_let_in() {
        let places = Places::new(2, 2);
        let (one, _) = places.take(ip(1), 1).unwrap();
        let (two, _) = places.take(ip(2), 2).unwrap();
        let (_one, two_answers) = (one.answering(), two.answering());
        assert!(places.take(ip(3), 3).is_none());
        drop(two_answers);
        assert_eq!(places.take(ip(3), 3).unwrap().1, Some(2));
    }
}
