//! When a delivery that failed is tried again.

/// Seconds before the second try; each further wait is twice as long.
pub const FIRST: u64 = 60;
/// The longest wait, in seconds.
pub const LONGEST: u64 = 6 * 3_600;
/// A message that could not be delivered for so many seconds is given up.
pub const GIVE_UP: u64 = 3 * 86_400;

/// When to try again after `tries` tries of a message that is there `since` then; none when it is given up.
/// All in seconds since 1970.
pub fn after(tries: u32, since: u64, now: u64) -> Option<u64> {
    let doublings = tries.saturating_sub(1).min(20);
    let next = now + (FIRST << doublings).min(LONGEST);
    (next <= since + GIVE_UP).then_some(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_from_a_minute_to_six_hours_for_three_days() {
        let (mut now, mut waits) = (1_000, Vec::new());
        while let Some(next) = after(waits.len() as u32 + 1, 1_000, now) {
            waits.push((next - now) / 60);
            now = next;
        }
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 360]);
        assert!(waits[10..].iter().all(|wait| *wait == 360));
        let over = now - 1_000;
        assert!(over > GIVE_UP - LONGEST && over <= GIVE_UP, "{over}");
    }

    proptest! {
        #[test]
        fn a_next_try_is_later_and_within_bounds(tries in 0u32.., since in 0u64..1 << 40, waited in 0u64..1 << 30) {
            let now = since + waited;
            if let Some(next) = after(tries, since, now) {
                prop_assert!(next >= now + FIRST && next <= now + LONGEST);
                prop_assert!(next <= since + GIVE_UP);
            } else {
                prop_assert!(waited + LONGEST > GIVE_UP);
            }
        }
    }
}
