//! Random numbers by a seed, in the shapes that the model needs. The generator is the agent's own.

use backhaul_agent::attend::dice::Dice;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Lot(Dice);

impl Lot {
    /// One stream of many: the seed's, for this purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mixed = dice.roll() ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(Dice::new(mixed))
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0.roll()
    }

    /// From 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Between two bounds.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Lognormal with this median and this deviation of the logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_have_their_medians_and_means() {
        let mut lot = Lot::new(1, 2);
        let mut lognormal: Vec<f64> = (0..20_001).map(|_| lot.lognormal(90.0, 0.8)).collect();
        lognormal.sort_by(f64::total_cmp);
        assert!((lognormal[10_000] - 90.0).abs() < 2.5, "{}", lognormal[10_000]);
        let mean = (0..20_000).map(|_| lot.exponential(20.0)).sum::<f64>() / 20_000.0;
        assert!((mean - 20.0).abs() < 0.5, "{mean}");
    }
}
