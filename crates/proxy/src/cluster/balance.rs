//! Which endpoint a request goes to: the cheaper of two drawn at random, by expected answer time and work under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;

/// Draws until one is fit to be asked, before all are looked at in turn; more where the light are often passed over.
const DRAWS: usize = 4;
const WEIGHTED_DRAWS: usize = 32;

/// Picks one of these, at constant cost while most are fit: none of `tried` and none that is ejected, as long as there is
/// another; then one that was not tried, then any. None only where there is none. `heaviest` is the largest weight.
pub(crate) fn pick<'e>(
    endpoints: &'e [Arc<Endpoint>],
    heaviest: usize,
    tried: &[SocketAddr],
    now: Duration,
    random: &mut fastrand::Rng,
) -> Option<&'e Arc<Endpoint>> {
    let untried = |e: &Endpoint| !tried.contains(&e.addr);
    let mut draw = Draw { endpoints, heaviest, random };
    draw.better_of_two(now, |e| untried(e) && e.is_available(now))
        .or_else(|| draw.better_of_two(now, untried))
        .or_else(|| draw.better_of_two(now, |_| true))
}

struct Draw<'e, 'r> {
    endpoints: &'e [Arc<Endpoint>],
    heaviest: usize,
    random: &'r mut fastrand::Rng,
}

impl<'e> Draw<'e, '_> {
    fn better_of_two(&mut self, now: Duration, fit: impl Fn(&Endpoint) -> bool) -> Option<&'e Arc<Endpoint>> {
        let first = self.one(|_, e| fit(e))?;
        if let [only] = self.endpoints {
            return Some(only);
        }
        // Where some are to get more than others, the same may be drawn twice: else of two each would get as much.
        let weighted = self.heaviest > 1;
        let second = self.one(|i, e| (weighted || i != first) && fit(e)).unwrap_or(first);
        let [a, b] = [first, second].map(|i| &self.endpoints[i]);
        Some(if is_better(b, a, now) { b } else { a })
    }

    /// One at random that fits, the heavier the likelier.
    fn one(&mut self, fit: impl Fn(usize, &Endpoint) -> bool) -> Option<usize> {
        let Self { endpoints, heaviest, random } = self;
        if endpoints.is_empty() {
            return None;
        }
        let draws = if *heaviest > 1 { WEIGHTED_DRAWS } else { DRAWS };
        for _ in 0..draws {
            let i = random.usize(..endpoints.len());
            let taken = *heaviest == 1 || random.usize(..*heaviest) < endpoints[i].weight();
            if taken && fit(i, &endpoints[i]) {
                return Some(i);
            }
        }
        let from = random.usize(..endpoints.len());
        (from..endpoints.len()).chain(0..from).find(|&i| fit(i, &endpoints[i]))
    }
}

/// Costs that differ by less than this factor are alike: noise is not to send everything to one of two equals.
const ALIKE: f64 = 2.0;

fn is_better(one: &Endpoint, other: &Endpoint, now: Duration) -> bool {
    let (cost, others) = (one.cost(now), other.cost(now));
    if cost * ALIKE < others {
        return true;
    }
    others * ALIKE >= cost && one.load() * other.weight() < other.load() * one.weight()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::endpoint::{Begun, Failed};
    use super::super::settings::Outliers;
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn endpoints(n: u8) -> Vec<Arc<Endpoint>> {
        let addr = |i| SocketAddr::from(([192, 0, 2, i], 80));
        let list: Vec<_> = (0..n).map(|i| Arc::new(Endpoint::new(addr(i), 1))).collect();
        for _ in 0..3 {
            list.iter().for_each(|e| e.succeeded(Duration::from_millis(1), true, NOW));
        }
        list
    }

    fn eject(endpoint: &Endpoint) {
        let outliers = Outliers { consecutive: 1, ..Outliers::default() };
        assert!(endpoint.failed(Failed::Badly, false, NOW, &outliers, || true));
    }

    /// How many of a thousand picks each gets.
    fn picks(list: &[Arc<Endpoint>], tried: &[SocketAddr]) -> HashMap<SocketAddr, usize> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut picks = HashMap::new();
        for _ in 0..1000 {
            *picks.entry(pick(list, 1, tried, NOW, &mut random).unwrap().addr).or_default() += 1;
        }
        picks
    }

    #[test]
    fn alike_endpoints_get_alike_shares() {
        let list = endpoints(10);
        let picks = picks(&list, &[]);
        assert!(picks.len() == 10 && picks.values().all(|n| (50..160).contains(n)), "{picks:?}");
    }

    #[test]
    fn the_slow_and_the_busy_get_less_and_the_ejected_and_the_tried_nothing() {
        let list = endpoints(4);
        list[0].succeeded(Duration::from_millis(100), true, NOW);
        (0..20).for_each(|_| assert_ne!(list[1].begin(NOW), Begun::Trial));
        let seen = picks(&list, &[]);
        assert!(seen[&list[2].addr] > 350 && seen[&list[3].addr] > 350, "{seen:?}");
        eject(&list[2]);
        let seen = picks(&list, &[list[3].addr]);
        assert!(!seen.contains_key(&list[2].addr) && !seen.contains_key(&list[3].addr), "{seen:?}");
    }

    #[test]
    fn where_none_is_fit_an_untried_one_is_asked_all_the_same_and_then_any() {
        let list = endpoints(3);
        list.iter().for_each(|e| eject(e));
        assert_eq!(picks(&list, &[list[0].addr, list[1].addr]).len(), 1);
        assert_eq!(picks(&list, &list.iter().map(|e| e.addr).collect::<Vec<_>>()).len(), 3);
        assert!(pick(&[], 1, &[], NOW, &mut fastrand::Rng::new()).is_none());
    }

    #[test]
    fn what_nothing_is_known_of_is_asked_once_and_then_waited_for() {
        let mut list = endpoints(2);
        list.push(Arc::new(Endpoint::new("192.0.2.99:80".parse().unwrap(), 1)));
        assert!(picks(&list, &[])[&list[2].addr] > 500);
        list[2].begin(NOW);
        assert!(!picks(&list, &[]).contains_key(&list[2].addr));
    }
}
