//! Views of a hundred members, whose views and flush vectors are longer than a frame.

mod common;

use std::time::Duration;

use common::live::{Town, group, member};
use wadjet::view::Neighbours;
use wadjet::{Config, Shadow, View};

const STACK: &str = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
const MEMBERS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn a_hundred_members_lose_some_let_one_in_and_deliver_the_same() {
    let config = Config { shadow: Shadow::Off, window_frames: 16, frame_bytes_max: 512, ..Config::default() };
    let mut town = Town::of(MEMBERS, STACK, &config);
    town.run(Duration::from_millis(20));
    for round in 0..10u32 {
        for at in (round as usize..MEMBERS as usize).step_by(10) {
            town.cast(at, &round.to_le_bytes());
        }
        town.step();
    }
    // The coordinator and another one stop, one leaves, and one wants in, all at once.
    let (dead, left) = ([0, 57], 31);
    dead.iter().for_each(|at| town.processes[*at].stopped = true);
    let leaving = &mut town.processes[left];
    leaving.endpoint.group(leaving.key).leave();
    let contacts = Neighbours { contacts: vec![member(8).address], discover: false };
    let new = member(MEMBERS + 1);
    let newcomer = town.start(View::alone(group(), new, STACK), MEMBERS + 1, contacts);
    let survivors: Vec<usize> = (0..=newcomer).filter(|at| !dead.contains(at) && *at != left).collect();
    assert!(town.until(PATIENCE, |town| town.together(&survivors)));
    town.run(Duration::from_millis(50));
    let delivered = |town: &Town, at: usize| {
        let mut casts = town.processes[at].casts_by_view()[0].1.clone();
        casts.sort_unstable();
        casts
    };
    let first = delivered(&town, survivors[0]);
    assert!(first.len() >= MEMBERS as usize - 3, "{} casts", first.len());
    for at in &survivors[1..survivors.len() - 1] {
        assert_eq!(delivered(&town, *at), first, "{at}");
    }
}
