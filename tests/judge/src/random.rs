//! Numbers that depend on nothing but a seed.

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): good
/// enough to vary what a test does, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below the bound.
    ///
    /// # Panics
    ///
    /// When the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// True once in `times` calls, on average.
    ///
    /// # Panics
    ///
    /// When `times` is 0.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Draws from a bag that is refilled when it is empty: so each value comes up, and soon.
    ///
    /// # Panics
    ///
    /// When `fill` returns nothing.
    pub fn draw<T>(&mut self, bag: &mut Vec<T>, fill: impl FnOnce() -> Vec<T>) -> T {
        if bag.is_empty() {
            *bag = fill();
        }
        let place = usize::try_from(self.below(bag.len() as u64)).expect("a place in the bag");
        bag.swap_remove(place)
    }
}
