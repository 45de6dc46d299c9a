//! Questions in which order objects lie, and their answers, as they travel.

use backhaul_object::ObjectId;

use crate::{ARRANGE_MAX, SessionError, wire};

/// A question as it travels.
pub(crate) fn question(ids: &[ObjectId]) -> wire::Arrange {
    wire::Arrange { ids: ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>().into() }
}

/// What is asked about.
///
/// # Errors
/// The question is malformed, or asks for too much.
pub(crate) fn ids(arrange: &wire::Arrange) -> Result<Vec<ObjectId>, SessionError> {
    let (ids, rest) = arrange.ids.as_chunks::<32>();
    if !rest.is_empty() || ids.is_empty() || ids.len() > ARRANGE_MAX {
        return Err(SessionError::Protocol("malformed or too many objects to arrange"));
    }
    Ok(ids.iter().copied().map(ObjectId).collect())
}

/// An answer about so many objects: each number once.
///
/// # Errors
/// It is something else.
pub(crate) fn order(arranged: &wire::Arranged, asked: usize) -> Result<Vec<usize>, SessionError> {
    let mut is_missing = vec![true; asked];
    let mut once = |number: &u32| {
        let slot = is_missing.get_mut(*number as usize)?;
        std::mem::take(slot).then_some(*number as usize)
    };
    let order = arranged.order.iter().map(&mut once).collect::<Option<Vec<_>>>();
    let order = order.filter(|order| order.len() == asked);
    order.ok_or(SessionError::Protocol("an order of other objects than were asked about"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_come_back_as_they_went(raw in proptest::collection::vec(any::<[u8; 32]>(), 1..50)) {
            let asked: Vec<ObjectId> = raw.into_iter().map(ObjectId).collect();
            prop_assert_eq!(ids(&question(&asked)).unwrap(), asked);
        }

        #[test]
        fn what_is_taken_names_each_once(order in proptest::collection::vec(0u32..6, 0..7), asked in 0usize..7) {
            let taken = super::order(&wire::Arranged { order: order.clone() }, asked);
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert_eq!(taken.is_ok(), sorted == (0..asked as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_question_of_nothing_of_half_an_id_or_of_too_much_is_refused() {
        for len in [0, 31, 33, 32 * (ARRANGE_MAX + 1)] {
            assert!(ids(&wire::Arrange { ids: vec![0; len].into() }).is_err(), "{len}");
        }
        assert!(ids(&wire::Arrange { ids: vec![0; 32 * ARRANGE_MAX].into() }).is_ok());
    }
}
