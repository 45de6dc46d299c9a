//! Means with their intervals, and percentiles.

/// Two-sided 95 % points of Student's distribution for 1 to 30 degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half the width of its 95 % interval; none of one value.
    pub half: Option<f64>,
}

/// The mean of values, each from another seed.
pub fn mean(values: &[f64]) -> Mean {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let half = (values.len() > 1).then(|| {
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let student = STUDENT.get(values.len() - 2).copied().unwrap_or(1.96);
        student * (variance / count).sqrt()
    });
    Mean { mean, half }
}

/// The nearest-rank percentile, 0 to 100; 0 of nothing. Sorts.
pub fn percentile(values: &mut [f32], percent: f64) -> f64 {
    values.sort_by(f32::total_cmp);
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().map_or(0.0, f64::from)
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_interval_of_two_values_is_wide() {
        let two = mean(&[1.0, 3.0]);
        assert_eq!(two.mean, 2.0);
        assert!((two.half.unwrap() - 12.706).abs() < 1e-9);
        assert_eq!(mean(&[5.0]), Mean { mean: 5.0, half: None });
    }

    #[test]
    fn percentiles_are_values_that_are_there() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((percentile(&mut values, 50.0), percentile(&mut values, 95.0)), (2.0, 4.0));
        assert_eq!(percentile(&mut [], 50.0), 0.0);
    }
}
