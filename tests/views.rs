//! Views that are agreed on: failures, joins, leaves, and what was delivered in between, with the shadow on.

mod common;

use std::time::Duration;

use common::live::{Seen, Town};
use wadjet::Config;

const STACK: &str = wadjet::layers::LIVE_STACK_WITH_INTEGRITY;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_member_that_stops_is_out_of_the_next_view_whoever_it_is() {
    for victim in 0..3 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        town.processes[victim].stopped = true;
        let others: Vec<usize> = (0..3).filter(|at| *at != victim).collect();
        let took = town.meet(&others, SECOND);
        assert!(took < Duration::from_millis(40), "member {victim}: {took:?}");
    }
}

#[test]
fn survivors_deliver_the_same_and_casts_of_the_flush_go_out_in_the_next_view() {
    for victim in 0..3 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        for n in 0..200u32 {
            for at in 0..3 {
                if !(at == victim && n > 100) {
                    town.cast(at, &n.to_le_bytes());
                }
            }
            town.step();
            if n == 100 {
                town.processes[victim].stopped = true;
            }
        }
        let others: Vec<usize> = (0..3).filter(|at| *at != victim).collect();
        town.meet(&others, SECOND);
        town.run(Duration::from_millis(100));
        let [a, b] = [others[0], others[1]].map(|at| town.processes[at].casts_by_view());
        assert_eq!(a.len(), 2);
        let by_origin = |casts: &[(u64, Vec<u8>)], origin: u64| -> Vec<Vec<u8>> {
            casts.iter().filter(|(o, _)| *o == origin).map(|(_, m)| m.clone()).collect()
        };
        for origin in 1..=3 {
            for view in 0..2 {
                assert_eq!(by_origin(&a[view].1, origin), by_origin(&b[view].1, origin), "{victim} {origin}");
            }
            let all: usize = a.iter().map(|(_, casts)| by_origin(casts, origin).len()).sum();
            if origin != victim as u64 + 1 {
                assert_eq!(all, 200, "nothing of a survivor is lost");
            }
        }
    }
}

#[test]
fn ten_processes_that_start_at_once_form_one_view() {
    let mut town = Town::new(STACK, &Config::default());
    for n in 0..10 {
        town.join(if n == 0 { &[] } else { &[1] });
    }
    let took = town.meet(&(0..10).collect::<Vec<_>>(), SECOND);
    assert!(took < Duration::from_millis(50), "{took:?}");
    town.cast(3, b"hello");
    town.run(Duration::from_millis(10));
    for process in &town.processes {
        let views = process.casts_by_view();
        assert_eq!(views.last().unwrap().1, [(4, b"hello".to_vec())]);
    }
}

#[test]
fn a_process_joins_through_any_member_and_leaves_again() {
    for contact in 1..=3 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(10));
        town.join(&[contact]);
        town.meet(&[0, 1, 2, 3], SECOND);
        let leaver = &mut town.processes[1];
        leaver.endpoint.group(leaver.key).leave();
        let took = town.meet(&[0, 2, 3], SECOND);
        assert!(took < Duration::from_millis(10), "nobody waits for a time-out: {took:?}");
        town.run(Duration::from_millis(10));
        assert_eq!(town.processes[1].diary.seen.last(), Some(&Seen::Exit("left the group".into())));
    }
}

#[test]
fn who_was_away_learns_that_the_others_have_gone_on() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    town.meet(&[0, 1], SECOND);
    town.run(SECOND);
    town.processes[2].stopped = false;
    let exits = |town: &mut Town| matches!(town.processes[2].diary.seen.last(), Some(Seen::Exit(_)));
    assert!(town.until(SECOND, exits), "{:?}", town.processes[2].diary.seen);
    assert!(town.together(&[0, 1]));
}

#[test]
fn a_transitional_view_says_who_goes_on_together_before_the_view_does() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[1].stopped = true;
    town.meet(&[0, 2], SECOND);
    town.run(Duration::from_millis(1));
    for at in [0, 2] {
        let views = town.processes[at].diary.seen.iter();
        let views = views.filter(|seen| matches!(seen, Seen::View(..) | Seen::Transitional(_)));
        let [Seen::View(..), Seen::Transitional(together), Seen::View(_, members)] =
            &views.collect::<Vec<_>>()[..]
        else {
            panic!("{:?}", town.processes[at].diary.seen)
        };
        assert_eq!((&together[..], &members[..]), (&[0, 2][..], &[1, 3][..]));
    }
}
