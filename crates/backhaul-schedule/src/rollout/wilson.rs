//! How far an observed rate can be trusted: Wilson's score interval (1927), which holds for few observations, too.

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.96;

/// The least and the greatest rate that so many of so many agree with, at 95 %.
pub(super) fn interval(part: u32, of: u32) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let n = f64::from(of);
    let rate = f64::from(part.min(of)) / n;
    let middle = rate + Z * Z / (2.0 * n);
    let width = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((middle - width) / scale).max(0.0), ((middle + width) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_intervals() {
        // Newcombe (1998), table I, method 3.
        for (part, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (l, h) = interval(part, of);
            assert!((l - low).abs() < 1e-4 && (h - high).abs() < 1e-4, "{part}/{of}: {l} {h}");
        }
        assert_eq!(interval(0, 0), (0.0, 1.0));
    }
}
