//! Labels beside the ends of lines, moved apart where they would overlap.

/// The places nearest to `wanted`, in its order, that are at least `gap` apart and within `low..=high`. Where there is not
/// enough room for all, they overlap at the low end.
pub(crate) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    // Neighbours that touch form a block that lies around the middle of what its members want.
    let mut blocks: Vec<Block> = Vec::new();
    for &label in &order {
        let mut block = Block { first: wanted[label], count: 1 };
        block.keep_within(low, high, gap);
        while let Some(above) = blocks.pop_if(|above| above.first + above.count as f64 * gap > block.first) {
            let middle = |block: &Block| block.first + (block.count - 1) as f64 * gap / 2.0;
            let count = above.count + block.count;
            let centre = (middle(&above) * above.count as f64 + middle(&block) * block.count as f64) / count as f64;
            block = Block { first: centre - (count - 1) as f64 * gap / 2.0, count };
            block.keep_within(low, high, gap);
        }
        blocks.push(block);
    }
    let places = blocks.iter().flat_map(|block| (0..block.count).map(|at| block.first + at as f64 * gap));
    let mut spread = vec![0.0; wanted.len()];
    for (&label, place) in order.iter().zip(places) {
        spread[label] = place;
    }
    spread
}

struct Block {
    first: f64,
    count: usize,
}

impl Block {
    fn keep_within(&mut self, low: f64, high: f64, gap: f64) {
        self.first = self.first.min(high - (self.count - 1) as f64 * gap).max(low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_touch_stays() {
        assert_eq!(spread(&[50.0, 10.0], 14.0, 0.0, 100.0), [50.0, 10.0]);
    }

    #[test]
    fn what_touches_moves_apart_and_stays_within() {
        for wanted in [&[50.0, 50.0, 50.0][..], &[99.0, 98.0, 97.0, 20.0], &[0.0, 1.0, 14.0, 15.0, 16.0]] {
            let mut places = spread(wanted, 14.0, 0.0, 100.0);
            places.sort_by(f64::total_cmp);
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 13.99), "{places:?}");
            assert!(places[0] >= 0.0 && places[places.len() - 1] <= 100.0, "{places:?}");
        }
    }

    #[test]
    fn order_is_kept() {
        let places = spread(&[30.0, 31.0, 29.0], 14.0, 0.0, 100.0);
        assert!(places[2] < places[0] && places[0] < places[1], "{places:?}");
    }
}
