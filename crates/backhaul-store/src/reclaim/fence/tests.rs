//! The fence against a world of numbers, by itself. Whole vaults are in tests/reclaim.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// 0 and 1 are leaves, 2 refers to both, 3 to 2, 4 to 1.
fn children(of: Ordinal) -> Result<Vec<Ordinal>, ()> {
    Ok(match of.0 {
        2 => vec![Ordinal(0), Ordinal(1)],
        3 => vec![Ordinal(2)],
        4 => vec![Ordinal(1)],
        _ => vec![],
    })
}

fn bits(members: &[u64]) -> Bits {
    members.iter().copied().map(Ordinal).collect()
}

#[test]
fn two_marks_and_nobody_from_before() {
    let mut fence = Fence::default();
    let before = fence.enter("before".to_owned());
    assert_eq!(fence.ripe(), Err(Wait::Nothing));
    assert_eq!(fence.marked(&bits(&[1, 4]), 5), 3);
    assert_eq!(fence.ripe(), Err(Wait::Grace));
    let after = fence.enter("after".to_owned());
    fence.marked(&bits(&[1, 4]), 5);
    assert_eq!(fence.ripe(), Err(Wait::Guests(vec!["before".to_owned()])));
    fence.leave(before);
    assert_eq!(fence.let_go().unwrap(), bits(&[0, 2, 3]));
    assert_eq!(fence.gone(), &bits(&[0, 2, 3]));
    assert_eq!(fence.claim(Ordinal(3), &mut children), Ok(false));
    assert_eq!(fence.marked(&bits(&[1, 4]), 5), 0, "what is gone is not condemned again");
    fence.leave(after);
}

#[test]
fn a_reader_holds_back_what_was_condemned_after_a_snapshot_of_its_client_went() {
    let (ana, bea) = (ClientId([1; 16]), ClientId([2; 16]));
    let mut fence = Fence::default();
    let reader = fence.enter_reader("ana".to_owned(), ana);
    fence.enter_reader("bea".to_owned(), bea);
    fence.marked(&bits(&[1, 4]), 5);
    fence.marked(&bits(&[1, 4]), 5);
    assert_eq!(fence.let_go().unwrap(), bits(&[0, 2, 3]), "it was never in a snapshot of theirs");
    fence.unmade(ana);
    fence.marked(&bits(&[4]), 5);
    fence.marked(&bits(&[4]), 5);
    assert_eq!(fence.ripe(), Err(Wait::Guests(vec!["ana".to_owned()])));
    fence.renew(reader, ana);
    assert_eq!(fence.let_go().unwrap(), bits(&[1]));
}

#[test]
fn a_claim_takes_everything_below_and_nothing_else() {
    let mut fence = Fence::default();
    fence.marked(&bits(&[]), 5);
    assert_eq!(fence.claim(Ordinal(2), &mut children), Ok(true));
    assert_eq!(fence.condemned()[0].objects, bits(&[3, 4]));
    let mut noted = fence.resurrected().to_vec();
    noted.sort_unstable();
    assert_eq!(noted, [0, 1, 2].map(Ordinal));
    fence.marked(&bits(&[]), 5);
    assert_eq!(fence.let_go().unwrap(), bits(&[3, 4]), "what was claimed is condemned anew, later");
    assert_eq!(fence.condemned().last().unwrap().objects, bits(&[0, 1, 2]));
}

#[test]
fn a_claim_that_cannot_read_leaves_no_parent_without_its_children() {
    let mut fence = Fence::default();
    fence.marked(&bits(&[]), 5);
    let mut broken = |of: Ordinal| if of.0 == 0 { Err(()) } else { children(of) };
    assert_eq!(fence.claim(Ordinal(3), &mut broken), Err(()));
    let left = &fence.condemned()[0].objects;
    assert!(left.has(Ordinal(3)) && left.has(Ordinal(2)) && left.has(Ordinal(0)));
}

#[test]
fn a_mark_that_reaches_it_saves_it() {
    let mut fence = Fence::default();
    fence.marked(&bits(&[]), 5);
    fence.marked(&bits(&[0, 1, 2]), 5);
    assert_eq!(fence.let_go().unwrap(), bits(&[3, 4]));
}

#[test]
fn those_who_wait_are_never_so_many_that_nothing_goes() {
    let mut fence = Fence::default();
    let mut guests = Vec::new();
    for round in 0..20 {
        guests.push(fence.enter(format!("{round}")));
        // There is always somebody, for three rounds each.
        if guests.len() > 3 {
            fence.leave(guests.remove(0));
        }
        fence.marked(&bits(&[]), round + 1);
        while fence.let_go().is_ok() {}
    }
    assert!(fence.gone().count() > 10, "{:?}", fence.gone());
}

/// Found by random schedules: it was written down as resurrected after the mark that condemned it anew, and what it
/// refers to was not.
#[test]
fn what_was_resurrected_before_a_mark_is_not_written_down_after_it() {
    let mut fence = Fence::default();
    fence.marked(&bits(&[0, 1]), 5);
    fence.claim(Ordinal(2), &mut children).unwrap();
    assert_eq!(fence.resurrected(), [Ordinal(2)]);
    fence.marked(&bits(&[]), 5);
    assert!(fence.is_condemned(Ordinal(2)) && fence.is_condemned(Ordinal(0)));
    assert!(fence.resurrected().is_empty());
}

/// What was let go was written down and could not be made durable; then somebody needed it again.
#[test]
fn what_was_resurrected_is_not_gone_whatever_is_written_down() {
    let (mut fence, needed) = (Fence::default(), bits(&[0, 1, 2]));
    fence.marked(&bits(&[]), 5);
    fence.marked(&bits(&[]), 5);
    fence.let_go().unwrap();
    let mut found = Fence::restore(fence.epoch(), Vec::new(), fence.gone().clone(), fence.leaving().clone());
    found.resume(&needed);
    assert_eq!((found.gone(), found.leaving()), (&bits(&[3, 4]), &bits(&[3, 4])));
    assert_eq!(found.claim(Ordinal(2), &mut children), Ok(true));
}
