//! Members that can take frames of different lengths: those of a view are as long as the least of them, in every view.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::live::Town;
use wadjet::layers::DEFAULT_STACK;
use wadjet::transport::ChannelId;
use wadjet::{Config, Rank, RankSet};

const SECOND: Duration = Duration::from_secs(1);
const FEW: usize = 700;
const MANY: usize = 4000;

/// A process that takes frames of so many bytes joins the first one.
fn join(town: &mut Town, frame_bytes_max: usize) -> usize {
    town.config = Config { frame_bytes_max, ..Config::default() };
    let contacts: &[u64] = if town.processes.is_empty() { &[] } else { &[1] };
    town.join(contacts)
}

fn agreed(town: &mut Town, at: usize) -> u32 {
    let process = &mut town.processes[at];
    process.endpoint.group(process.key).view().view().frame_bytes
}

/// Everybody named casts, and sends to the first, more than a frame, and many that fit one together; all of it arrives.
fn all_talk(town: &mut Town, whom: &[usize]) {
    let large: Vec<u8> = (0..20_000_u32).map(|at| at as u8).collect();
    let before: Vec<usize> = whom.iter().map(|at| town.processes[*at].diary.ids[0].len()).collect();
    for at in whom {
        let process = &mut town.processes[*at];
        let mut group = process.endpoint.group(process.key);
        group.cast(&large).unwrap();
        (0..20).for_each(|_| {
            group.cast(&[7; 100]).unwrap();
        });
        group.send(&RankSet::one(Rank(0)), &large).unwrap();
    }
    let there = |town: &mut Town| {
        let casts = |at: usize| town.processes[whom[at]].diary.ids[0].len() - before[at];
        // Packed or not: the last of each is there when the large ones are, and all that fit behind them.
        (0..whom.len()).all(|at| casts(at) >= 2 * whom.len())
    };
    assert!(town.until(SECOND, there), "{:?}", before);
    town.run(Duration::from_millis(20));
}

#[test]
fn frames_of_a_view_are_as_long_as_every_member_can_take() {
    let mut town = Town::new(DEFAULT_STACK, &Config::default());
    // The longest frame on its way to anybody in a view, since that was looked at last.
    let longest = Rc::new(RefCell::new(0));
    let seen = Rc::clone(&longest);
    town.lose = Box::new(move |_, received| {
        if received.channel != ChannelId::OUTSIDE {
            let mut longest = seen.borrow_mut();
            *longest = received.bytes().len().max(*longest);
        }
        false
    });
    let first = join(&mut town, MANY);
    let second = join(&mut town, MANY);
    town.meet(&[first, second], SECOND);
    all_talk(&mut town, &[first, second]);
    assert_eq!(agreed(&mut town, second), MANY as u32);
    assert!((MANY - 100..=MANY).contains(&longest.take()), "large frames are made use of");

    // One that takes short ones only comes in: nothing longer is sent in a view that has it.
    let third = join(&mut town, FEW);
    town.meet(&[first, second, third], SECOND);
    longest.take();
    all_talk(&mut town, &[first, second, third]);
    for at in [first, second, third] {
        assert_eq!(agreed(&mut town, at), FEW as u32);
    }
    assert!((FEW - 100..=FEW).contains(&longest.take()), "no frame is longer, and they are filled");

    // It leaves: the others have long ones again.
    let process = &mut town.processes[third];
    process.endpoint.group(process.key).leave();
    town.meet(&[first, second], SECOND);
    all_talk(&mut town, &[first, second]);
    assert_eq!(agreed(&mut town, first), MANY as u32);
    assert!(longest.take() > MANY - 100);
}
