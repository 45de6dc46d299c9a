//! What a link that fails, a server that sends away, and a wait that is cut lead to.

use super::*;

fn terms() -> AgentTerms {
    AgentTerms { join_jitter: 0, ..AgentTerms::default() }
}

fn stay() -> Happening {
    Happening::Linked(Verdict { due_in: 1_000_000, link: LinkWish::Stay, age: Age::InTime })
}

/// Waits for the next dial; returns when it is.
fn dial(machine: &mut Attendant, now: u64) -> u64 {
    let at = machine.deadline().map_or(now, |at| at.max(now));
    assert!(machine.handle(at, Happening::Tick).contains(&Order::Dial), "no dial at {at}");
    at
}

fn started() -> Attendant {
    let mut machine = Attendant::new(terms(), 7);
    assert_eq!(machine.handle(0, Happening::Started), [Order::Dial]);
    machine
}

#[test]
fn a_link_that_is_dropped_at_once_is_dialled_ever_more_rarely() {
    let (mut machine, mut now) = (started(), 0);
    for _ in 0..40 {
        machine.handle(now, stay());
        machine.handle(now + 10, Happening::Unlinked);
        now = dial(&mut machine, now + 10);
    }
    assert!(now > 3_600_000, "40 dials in {now} ms");
    machine.handle(now, stay());
    machine.handle(now + STOOD, Happening::Unlinked);
    let again = dial(&mut machine, now + STOOD);
    assert!(again <= now + STOOD + 500 + BACKOFF.start(), "a link that stood is dialled again soon");
}

#[test]
fn who_is_sent_away_does_not_come_before_its_time_whatever_happens() {
    let mut machine = started();
    machine.handle(1_000, Happening::SentAway { after: 600 });
    assert!(machine.handle(2_000, Happening::Woke).is_empty());
    assert!(machine.handle(3_000, Happening::Network(Some(Fingerprint([1; 8])))).is_empty());
    assert!(machine.handle(600_999, Happening::Tick).is_empty());
    assert!(dial(&mut machine, 3_000) >= 601_000);
    machine.handle(700_000, Happening::SentAway { after: u64::MAX });
    assert!(machine.deadline().is_some_and(|at| at <= 700_000 + 2 * AWAY_MAX * 1_000));
}

#[test]
fn the_ticket_of_a_wait_that_was_cut_is_shown_next_time_even_in_another_network() {
    let mut machine = started();
    machine.handle(0, stay());
    machine.handle(0, Happening::Pulled);
    machine.handle(1_000, Happening::Ended(End::Failed { ticket: vec![5] }));
    machine.handle(2_000, Happening::Unlinked);
    let orders = machine.handle(40_000, Happening::Network(Some(Fingerprint([1; 8]))));
    let later = machine.handle(200_000, Happening::Tick);
    let shown = |order: &Order| matches!(order, Order::Push { ticket, .. } if *ticket == [5]);
    assert!(orders.iter().chain(&later).any(shown), "{orders:?} {later:?}");
}

#[test]
fn a_deferral_outlives_a_pull_that_came_to_nothing() {
    let mut machine = started();
    machine.handle(0, Happening::Ended(End::Deferred { after: 60, ticket: vec![9] }));
    machine.handle(1_000, Happening::Pulled);
    machine.handle(2_000, Happening::Ended(End::Needless));
    let orders = machine.handle(60_000, Happening::Tick);
    assert!(orders.contains(&Order::Push { trigger: Trigger::Join, ticket: vec![9] }), "{orders:?}");
}
