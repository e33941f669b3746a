//! Which server holds an item.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::remote::key::WireKey;
use crate::remote::tier::Route;

/// The seed of the hash of a server's address. Changing it, or the hash, moves every item: a breaking change.
const ADDRESS_SEED: u64 = 0x6c61_7264_6572;

/// What stands for the key of group tokens and journal. Not a wire key (it has a space), so no item weighs on the choice.
const CONTROL: &[u8] = b"larder control";

/// Rendezvous hashing: each server draws a number for the key, and the highest draw holds the item.
///
/// The draws depend on a server's address and the key alone. So the order of the list does not matter, a new server takes
/// its share evenly from the others, and nothing else moves.
#[derive(Debug)]
pub(super) struct Router {
    /// One seed a server, made of its address.
    seeds: Vec<u64>,
    control: usize,
}

impl Router {
    /// Makes a router over `addresses`, which are distinct and not empty.
    pub(super) fn new<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let seeds: Vec<_> =
            addresses.into_iter().map(|address| xxh3_64_with_seed(address.as_bytes(), ADDRESS_SEED)).collect();
        let control = highest_draw(&seeds, CONTROL);
        Self { seeds, control }
    }

    /// Returns the server's place in the list that the router was made of.
    pub(super) fn server(&self, key: &WireKey, route: Route) -> usize {
        match route {
            Route::Control => self.control,
            Route::ByKey if self.seeds.len() == 1 => 0,
            Route::ByKey => highest_draw(&self.seeds, key.as_bytes()),
        }
    }
}

fn highest_draw(seeds: &[u64], key: &[u8]) -> usize {
    // Equal draws are decided by the seed, which like the draw does not depend on the order of the list.
    let draw = |index: &usize| (xxh3_64_with_seed(key, seeds[*index]), seeds[*index]);
    (0..seeds.len()).max_by_key(draw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [&str; 4] = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211", "cache.example:11211"];
    const KEYS: usize = 10_000;

    fn key(number: usize) -> WireKey {
        WireKey::new(format!("app:1:v:users:{number}")).unwrap()
    }

    fn assign<'a>(addresses: &[&'a str], key: &WireKey, route: Route) -> &'a str {
        addresses[Router::new(addresses.iter().copied()).server(key, route)]
    }

    /// These are part of the wire format: a build that assigns otherwise misses what the one before it stored.
    #[test]
    fn assignments_are_stable_across_builds() {
        let router = Router::new(ADDRESSES);
        let assigned: Vec<_> = (0..16).map(|number| router.server(&key(number), Route::ByKey)).collect();
        assert_eq!(assigned, GOLDEN);
        assert_eq!(router.control, GOLDEN_CONTROL);
    }

    const GOLDEN: [usize; 16] = [2, 1, 0, 1, 0, 3, 0, 1, 0, 2, 2, 1, 3, 0, 3, 3];
    const GOLDEN_CONTROL: usize = 2;

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut other = ADDRESSES;
        other.reverse();
        other.swap(0, 1);
        for number in 0..100 {
            for route in [Route::ByKey, Route::Control] {
                assert_eq!(assign(&ADDRESSES, &key(number), route), assign(&other, &key(number), route));
            }
        }
    }

    #[test]
    fn control_commands_share_one_server_whatever_their_key() {
        let router = Router::new(ADDRESSES);
        assert!((0..100).all(|number| router.server(&key(number), Route::Control) == router.control));
    }

    #[test]
    fn a_new_server_takes_its_share_and_nothing_else_moves() {
        let (before, after) = (Router::new(ADDRESSES[..3].iter().copied()), Router::new(ADDRESSES));
        let mut share = [0; 4];
        for number in 0..KEYS {
            let (old, new) = (before.server(&key(number), Route::ByKey), after.server(&key(number), Route::ByKey));
            assert!(new == old || new == 3, "key {number} moved from {old} to {new}");
            share[new] += 1;
        }
        for count in share {
            assert!((KEYS / 4 - KEYS / 40..=KEYS / 4 + KEYS / 40).contains(&count), "{share:?}");
        }
    }
}
