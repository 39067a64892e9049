//! A worker's own view: places decoded once per record and generation.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use model::Place;

use crate::generation::Key;
use crate::reload::Geo;

/// The most places remembered. When there are more, all are forgotten: cheaper than to keep account of their use, and rare,
/// since a worker meets few places at a time.
const MAX_PLACES: usize = 4096;

/// Looks addresses up for one worker.
pub struct Lookup {
    geo: Arc<Geo>,
    generation: u64,
    places: HashMap<Key, Rc<Place>>,
}

impl Lookup {
    /// An empty memory. It keeps no database from being replaced and freed.
    pub fn new(geo: Arc<Geo>) -> Self {
        Self { geo, generation: 0, places: HashMap::new() }
    }

    /// Where an address is. Never fails: what is not known is absent from the place.
    pub fn place(&mut self, ip: IpAddr) -> Rc<Place> {
        let current = self.geo.load();
        if self.generation != current.number() {
            self.generation = current.number();
            self.places.clear();
        }
        let key = current.key(ip);
        if let Some(place) = self.places.get(&key) {
            return Rc::clone(place);
        }
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        let (place, damaged) = current.place(ip);
        self.geo.count_damaged(damaged);
        let place = Rc::new(place);
        self.places.insert(key, Rc::clone(&place));
        place
    }

    /// The number of the generation that [`Lookup::place`] would look at: as long as it stays, so does every answer.
    pub fn generation(&self) -> u64 {
        self.geo.load().number()
    }
}
