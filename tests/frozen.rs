//! A cast of a failed member that comes late, at any point of the view change: those that go on have delivered the same of it.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{STEP, Seen, Town};
use wadjet::Config;
use wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY as STACK;

const MARK: [u8; 64] = [9; 64];

/// The third of three casts, which nobody hears, and stops; what it has cast comes to the second so many steps after that one
/// has suspected it, if it has not gone on by then. Whether the two go on, and how often each has delivered the cast.
fn late(nak: &str, steps: u32) -> Option<(bool, [usize; 2])> {
    let mut town = Town::of(3, &STACK.replace("NAK", nak), &Config { pack: false, ..Config::default() });
    town.run(Duration::from_millis(150));
    let cast = Rc::new(RefCell::new(None));
    let taken = Rc::clone(&cast);
    town.lose = Box::new(move |_, received| {
        let marked = received.bytes().windows(MARK.len()).any(|bytes| bytes == MARK);
        if marked {
            *taken.borrow_mut() = Some(received.bytes().to_vec());
        }
        marked
    });
    town.cast(2, &MARK);
    town.step();
    town.processes[2].stopped = true;
    let suspects = |town: &mut Town| town.suspicions(1).iter().any(|(member, _)| *member == 2);
    assert!(town.until(Duration::from_millis(100), suspects));
    town.run(STEP * steps);
    let process = &mut town.processes[1];
    if process.view().1.len() < 3 {
        return None;
    }
    town.lose = Box::new(|_, _| false);
    let cast = cast.borrow_mut().take().expect("it was on its way");
    process.endpoint.receive(common::received(&cast), town.now, &mut process.diary);
    let on = town.until(Duration::from_millis(100), |town| town.together(&[0, 1]));
    town.run(Duration::from_millis(5));
    let delivered = |at: usize| {
        let of_it = |seen: &&Seen| matches!(seen, Seen::Cast(3, message) if *message == MARK);
        town.processes[at].diary.seen.iter().filter(of_it).count()
    };
    Some((on, [0, 1].map(delivered)))
}

/// What became of it at each step of the view change.
fn at_each_step(nak: &str) -> Vec<(bool, [usize; 2])> {
    (0..2000).map_while(|steps| late(nak, steps)).collect()
}

#[test]
fn who_goes_on_has_delivered_the_same_of_a_failed_member_whenever_its_cast_comes() {
    let found = at_each_step("NAK");
    assert!(found.len() > 2, "the view change takes more than a step: {found:?}");
    assert!(found.iter().all(|(on, [first, second])| *on && first == second), "{found:?}");
    assert!(found.contains(&(true, [0, 0])), "it has come too late once: {found:?}");
}

#[cfg(feature = "laboratory")]
#[test]
fn who_takes_one_more_in_than_it_has_reported_has_delivered_more() {
    let found = at_each_step("NAK(broken=freezes-late)");
    assert!(found.iter().any(|(on, [first, second])| !on || first != second), "{found:?}");
}
