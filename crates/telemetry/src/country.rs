//! Countries as array places, so that counting one costs an addition.

use model::{Code, Place, Scope};

/// Places: every pair of letters, then what has no country.
pub(crate) const PLACES: usize = 26 * 26 + OTHERS.len();

/// What has no country: the scopes that are not global, and a global address the database does not know.
const OTHERS: [&str; 7] = ["private", "loopback", "link_local", "cgnat", "multicast", "reserved", "unknown"];

/// Where a request's origin is counted.
pub(crate) fn place_of(place: &Place) -> usize {
    let other = match (place.country, place.scope) {
        (Some(code), _) => return letters(code),
        (None, Scope::Private) => 0,
        (None, Scope::Loopback) => 1,
        (None, Scope::LinkLocal) => 2,
        (None, Scope::Cgnat) => 3,
        (None, Scope::Multicast) => 4,
        (None, Scope::Reserved) => 5,
        (None, Scope::Global) => 6,
    };
    26 * 26 + other
}

fn letters(code: Code) -> usize {
    code.as_str().bytes().fold(0, |place, letter| place * 26 + usize::from(letter - b'A'))
}

/// The label of a place.
pub(crate) fn label(place: usize) -> String {
    match place.checked_sub(26 * 26) {
        Some(other) => OTHERS[other].to_owned(),
        None => [place / 26, place % 26].map(|letter| char::from(b'A' + letter as u8)).iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_label() {
        for code in ["AA", "NO", "US", "ZZ"] {
            let place = Place { country: Some(code.parse().unwrap()), ..Place::default() };
            assert_eq!(label(place_of(&place)), code);
        }
        assert_eq!(label(place_of(&Place::default())), "unknown");
        assert_eq!(label(place_of(&Place { scope: Scope::Cgnat, ..Place::default() })), "cgnat");
        assert_eq!(label(PLACES - 1), "unknown");
    }
}
