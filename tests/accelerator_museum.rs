//! The museum of accelerators that are wrong in what they keep from one view to the next, and in what they park. Each
//! exhibit lacks a property that the sound one has in the same run. Others are in `museum.rs` (declarations), and in the
//! bounded check of plans against layers (what is left out, forgotten guards, wrong plans).

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::World;
use common::live::{Process, Town};
use wadjet::Config;
use wadjet::accel::broken::Broken;
use wadjet::layers::{DEFAULT_STACK_WITH_INTEGRITY, FIXED_STACK};
use wadjet::transport::{Received, Transport};
use wadjet::wire::{FULL_FLAG, word};

const SECOND: Duration = Duration::from_secs(1);

/// A check, by the name of what it sees to; whether it holds.
type Check = (&'static str, fn(Broken) -> bool);

const EXHIBITS: &[(Broken, Check)] = &[
    (
        Broken::PacksAcrossViews,
        ("what was cast before the end of a view belongs to it", casts_keep_their_view),
    ),
    (
        Broken::PredictsAcrossViews,
        ("frames of a view that is over are not delivered", late_frames_are_dropped),
    ),
    (Broken::ParksOneMore, ("no more frames wait than may", parked_frames_are_bounded)),
];

#[test]
fn every_wrong_use_of_plans_is_caught_by_its_check() {
    for (broken, (name, holds)) in EXHIBITS {
        assert!(holds(Broken::No), "{name}: the sound one");
        assert!(!holds(*broken), "{name}: {broken:?} is not caught");
    }
}

fn is_fast(received: &Received) -> bool {
    word(received.bytes(), 0).is_some_and(|first| first & FULL_FLAG == 0)
}

/// Three, of whom the last stops.
fn town(broken: Broken, spec: &str) -> Town {
    let mut town = Town::of(3, spec, &Config::default());
    for Process { endpoint, key, .. } in &mut town.processes {
        endpoint.break_accelerator(*key, broken);
    }
    town.run(Duration::from_millis(30));
    town
}

/// By view: the messages of the first process, as the second delivered them.
fn delivered(town: &Town) -> Vec<Vec<Vec<u8>>> {
    let views = town.processes[1].casts_by_view().into_iter();
    views.map(|(_, casts)| casts.into_iter().filter(|(o, _)| *o == 1).map(|(_, m)| m).collect()).collect()
}

/// The first message leaves at once, the second waits to be packed, the third is of the next view.
fn casts_keep_their_view(broken: Broken) -> bool {
    let mut town = town(broken, &DEFAULT_STACK_WITH_INTEGRITY.replace("MBRSHIP", "MBRSHIP(block=yes)"));
    town.processes[2].stopped = true;
    let blocked = |town: &mut Town| {
        let seen = |at: usize| town.processes[at].diary.seen.contains(&common::live::Seen::Block);
        seen(0) && seen(1)
    };
    assert!(town.until(SECOND, blocked));
    let Process { endpoint, key, .. } = &mut town.processes[0];
    let mut group = endpoint.group(*key);
    group.cast(b"first").unwrap();
    group.cast(b"second").unwrap();
    group.block_ok();
    group.cast(b"third").unwrap();
    let Process { endpoint, key, .. } = &mut town.processes[1];
    endpoint.group(*key).block_ok();
    town.meet(&[0, 1], SECOND);
    town.run(Duration::from_millis(10));
    delivered(&town) == [vec![b"first".to_vec(), b"second".to_vec()], vec![b"third".to_vec()]]
}

/// A frame comes again when its view is over. In the next one it would have the number that is expected.
fn late_frames_are_dropped(broken: Broken) -> bool {
    let mut town = town(broken, DEFAULT_STACK_WITH_INTEGRITY);
    let kept = Rc::new(RefCell::new(Vec::new()));
    let frames = Rc::clone(&kept);
    town.lose = Box::new(move |at, received| {
        if at == 1 && is_fast(received) {
            frames.borrow_mut().push(received.clone());
        }
        false
    });
    town.cast(0, b"once");
    town.run(Duration::from_millis(1));
    let late = kept.take();
    assert!(!late.is_empty());
    town.processes[2].stopped = true;
    town.meet(&[0, 1], SECOND);
    let (now, Process { endpoint, diary, .. }) = (town.now, &mut town.processes[1]);
    late.into_iter().for_each(|frame| endpoint.receive(frame, now, diary));
    delivered(&town) == [vec![b"once".to_vec()], Vec::new()]
}

/// The first frame comes last: as many as there may be have waited for it, and one more sends them all through the layers.
fn parked_frames_are_bounded(broken: Broken) -> bool {
    const MOST: usize = 4;
    let config = Config { pack: false, early_frames_max: MOST, ..Config::default() };
    // How many were delivered early when so many came before the first.
    let early = |ahead: usize| {
        let mut world = World::new(2, FIXED_STACK, &config);
        let key = world.nodes[1].key;
        world.nodes[1].endpoint.break_accelerator(key, broken);
        (0..=ahead as u8).for_each(|n| world.cast(0, &[n]));
        world.nodes[1].stopped = true;
        world.step();
        world.nodes[1].stopped = false;
        let mut frames = Vec::new();
        world.nodes[1].transport.receive(64, &mut |received| frames.push(received));
        frames.retain(is_fast);
        frames.rotate_left(1);
        let (now, node) = (world.now, &mut world.nodes[1]);
        frames.into_iter().for_each(|frame| node.endpoint.receive(frame, now, &mut node.log));
        node.stats().fast_path.deliver_early
    };
    (early(MOST), early(MOST + 1)) == (MOST as u64, 0)
}
