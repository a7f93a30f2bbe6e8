//! Views that have gone separate ways: who is told that it is out, by whom, and how those come together again.

mod common;

use std::time::Duration;

use common::live::{Replica, Seen, Town, group, member};
use wadjet::transport::ChannelId;
use wadjet::view::Neighbours;
use wadjet::wire::full::{PREFIX_BYTES, Prefix};
use wadjet::{Address, Config, Incarnation, Member, View};

const STACK: &str = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
const SECOND: Duration = Duration::from_secs(1);

/// Nothing of it reaches anybody any more: it cannot ask, and nobody hears that it is there.
#[test]
fn who_is_left_out_is_told_by_the_one_who_led_the_others_on_and_nobody_else() {
    for mute in 0..4 {
        let mut town = Town::of(4, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        let others: Vec<usize> = (0..4).filter(|at| *at != mute).collect();
        let lost = Incarnation(mute as u64 + 1);
        town.lose = Box::new(move |at, received| {
            let of_mute = |prefix: Prefix| prefix.identification.origin == lost;
            at != mute && Prefix::decode(received.bytes()).is_ok_and(|(prefix, ..)| of_mute(prefix))
        });
        town.meet(&others, SECOND);
        town.run(Duration::from_millis(5));
        let why = town.exit(mute).unwrap_or_else(|| panic!("{:?}", town.processes[mute].diary.seen));
        assert!(why.starts_with("excluded: "), "{why}");
        let told = |at: &usize| town.counted(*at, "told of its exclusion");
        let leader = others[0];
        assert_eq!(others.iter().map(told).sum::<u64>(), 1);
        assert_eq!(town.counted(leader, "told of its exclusion"), 1);
    }
}

/// Who is alone may be deaf: unasked it tells nobody.
#[test]
fn a_lesser_part_sends_nobody_away() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.lose = Box::new(|at, _| at == 0);
    town.meet(&[1, 2], SECOND);
    town.run(Duration::from_millis(100));
    assert_eq!([1, 2].map(|at| town.exit(at)), [None; 2]);
    assert_eq!(town.counted(0, "told of its exclusion"), 0);
}

#[test]
fn who_was_away_for_more_views_than_are_remembered_learns_that_it_is_out() {
    for changes in [10, 70] {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        town.processes[2].stopped = true;
        // What waits for it is lost, as in any queue that is not read for so long.
        let queued = std::rc::Rc::new(std::cell::Cell::new(true));
        let is_queued = std::rc::Rc::clone(&queued);
        town.lose = Box::new(move |at, _| at == 2 && is_queued.get());
        town.meet(&[0, 1], SECOND);
        for _ in 0..changes / 2 {
            let new = town.join(&[1]);
            town.meet(&[0, 1, new], SECOND);
            let process = &mut town.processes[new];
            process.endpoint.group(process.key).leave();
            town.meet(&[0, 1], SECOND);
        }
        town.processes[2].stopped = false;
        town.run(Duration::from_millis(5));
        queued.set(false);
        town.run(Duration::from_millis(300));
        let why = town.exit(2).unwrap_or_else(|| panic!("{changes}: {:?}", town.processes[2].diary.seen));
        assert!(why.starts_with("excluded: "), "{why}");
    }
}

/// Two of five have parted from the others, who do not let them in: the share of two seconds in which they could not cast.
fn held_while_apart(town: &mut Town) -> f64 {
    let (mut held, mut steps) = (0, 0);
    town.until(2 * SECOND, |town| {
        steps += 1;
        let seen = &town.processes[3].diary.seen;
        let last = seen.iter().rposition(|seen| matches!(seen, Seen::View(..) | Seen::Block));
        held += usize::from(last.is_some_and(|last| seen[last] == Seen::Block));
        false
    });
    f64::from(held as u32) / f64::from(steps)
}

/// Two of five, by place 3 and 4, that have parted from the others.
fn parted() -> Town {
    parted_with(STACK)
}

fn parted_with(spec: &str) -> Town {
    let mut town = Town::of(5, spec, &Config::default());
    town.run(Duration::from_millis(30));
    town.apart = vec![4, 5];
    assert!(town.until(SECOND, |town| town.together(&[0, 1, 2]) && town.together(&[3, 4])));
    town
}

/// A partition that heals one way.
#[test]
fn a_greater_view_that_does_not_hear_the_lesser_one_holds_nothing_up_there() {
    let mut town = parted();
    town.apart.clear();
    let of_lesser = |origin: Incarnation| origin == Incarnation(4) || origin == Incarnation(5);
    town.lose = Box::new(move |at, received| {
        let origin = Prefix::decode(received.bytes()).map(|(prefix, ..)| prefix.identification.origin);
        at < 3 && origin.is_ok_and(of_lesser)
    });
    let held = held_while_apart(&mut town);
    assert_eq!(held, 0.0);
    assert!(town.together(&[3, 4]));
    town.lose = Box::new(|_, _| false);
    let took = town.meet(&[0, 1, 2, 3, 4], SECOND);
    assert!(took < Duration::from_millis(300), "{took:?}");
}

/// It is heard and welcome, and no letter comes of those that say that it has stopped casting and waits.
fn waits_in_vain(spec: &str) -> Town {
    let mut town = parted_with(spec);
    town.apart.clear();
    town.lose = Box::new(|at, received| {
        const MERGE: u8 = 1;
        let body = received.bytes().get(PREFIX_BYTES + 10..).unwrap_or_default();
        let with_token = body.get(17..25).is_some_and(|token| token != [0; 8]);
        at < 3 && received.channel == ChannelId::OUTSIDE && body[0] == MERGE && with_token
    });
    town
}

#[test]
fn a_view_that_waits_for_its_host_in_vain_goes_on_for_longer_than_it_has_waited() {
    let mut town = waits_in_vain(STACK);
    let held = held_while_apart(&mut town);
    assert!((0.05..0.4).contains(&held), "{held}");
    assert!(town.together(&[3, 4]));
}

/// It waits longer each time, up to eight times as long as the first; flush_ms is about something else.
#[test]
fn who_waits_for_a_host_in_vain_is_taken_for_failed_by_nobody_however_often() {
    for parameters in ["", "(flush_ms=50)", "(flush_ms=1)", "(merge_ms=300)", "(merge_ms=5)"] {
        let mut town = waits_in_vain(&STACK.replace("MBRSHIP", &format!("MBRSHIP{parameters}")));
        let suspected = [3, 4].map(|at| town.suspicions(at));
        let tried = town.until(40 * SECOND, |town| town.counted(3, "merge given up") >= 6);
        assert!(tried, "{parameters}: {:?}", town.processes[3].diary.seen);
        assert_eq!([3, 4].map(|at| town.exit(at)), [None; 2], "{parameters}");
        assert_eq!([3, 4].map(|at| town.suspicions(at)), suspected, "{parameters}");
        assert!(town.until(SECOND, |town| town.together(&[3, 4])), "{parameters}");
    }
}

/// Its members leave one after the other, and those of another view want in: they are in no view that none of it is in.
#[test]
fn who_wants_into_a_view_that_all_leave_stays_in_its_own() {
    for steps in 0..60 {
        let mut town = parted();
        let leave = |town: &mut Town, at: usize| {
            let process = &mut town.processes[at];
            process.endpoint.group(process.key).leave();
        };
        town.apart.clear();
        assert!(town.until(SECOND, |town| town.counted(3, "merge begun") > 0));
        (0..steps).for_each(|_| town.step());
        (0..3).for_each(|at| leave(&mut town, at));
        assert!(town.until(SECOND, |town| (0..3).all(|at| town.exit(at).is_some())), "after {steps} steps");
        town.meet(&[3, 4], SECOND);
        for seen in &town.processes[3].diary.seen {
            let Seen::View(id, members) = seen else { continue };
            let founder = id.coordinator.0;
            assert!(members.contains(&founder), "after {steps} steps: {id} of {members:?}");
        }
    }
}

/// Three with a state of 50 casts, whose members count as seniors after so many milliseconds.
fn with_a_state(senior_ms: u64) -> Town {
    let spec = format!("XFER:{}", STACK.replace("MBRSHIP", &format!("MBRSHIP(senior_ms={senior_ms})")));
    let mut town = Town::of(3, &spec, &Config::default());
    for process in &mut town.processes {
        process.diary.replica = Some(Replica::default());
    }
    town.run(Duration::from_millis(2));
    (0..50_u64).for_each(|n| town.cast(0, &n.to_le_bytes()));
    town.run(Duration::from_millis(60));
    town
}

/// A process starts at the address of member `own`, with nothing, and knows where all are.
fn starts_again(town: &mut Town, own: u64) {
    let address = member(own).address;
    let next = Member { incarnation: Incarnation(own + 10), address: address.clone() };
    let contacts = (1..=3).filter(|other| *other != own).map(|other| Address(format!("p{other}"))).collect();
    let view = View::alone(group(), next, &town.spec.clone());
    let at = town.start_at(view, own + 10, &address, Neighbours { contacts, discover: false });
    town.processes[at].diary.replica = Some(Replica::default());
}

/// How many casts the states of all consist of, when they have come together.
fn casts_of_all(town: &mut Town) -> Vec<u64> {
    town.meet(&[0, 1, 2], 2 * SECOND);
    town.run(Duration::from_millis(100));
    let replica = |at: usize| town.processes[at].diary.replica.as_ref().unwrap();
    (0..3).map(|at| replica(at).state.values().map(|(count, _)| count).sum()).collect()
}

/// Most of a group crash, and are started again at once: they find each other before the one that is left has found that out.
fn after_most_have_started_again(senior_ms: u64) -> Vec<u64> {
    let mut town = with_a_state(senior_ms);
    // Who is dead has let go of its address.
    town.processes.truncate(1);
    town.run(Duration::from_millis(5));
    [2, 3].into_iter().for_each(|own| starts_again(&mut town, own));
    casts_of_all(&mut town)
}

/// The others are gone for good, and the one that has the state does not run for a moment while two start.
fn after_two_have_started_while_the_last_was_away(senior_ms: u64) -> Vec<u64> {
    let mut town = with_a_state(senior_ms);
    town.processes.truncate(1);
    town.meet(&[0], SECOND);
    town.processes[0].stopped = true;
    [2, 3].into_iter().for_each(|own| starts_again(&mut town, own));
    town.run(Duration::from_millis(10));
    town.processes[0].stopped = false;
    casts_of_all(&mut town)
}

#[test]
fn those_that_have_just_started_take_the_state_of_who_was_there_before_however_many_they_are() {
    assert_eq!(after_most_have_started_again(50), [50; 3]);
    assert_eq!(after_two_have_started_while_the_last_was_away(50), [50; 3]);
    // Where nobody has been there for long the greater part decides, and all there was is gone.
    assert_eq!(after_most_have_started_again(3_600_000), [0; 3]);
    assert_eq!(after_two_have_started_while_the_last_was_away(3_600_000), [0; 3]);
}

/// Of two parts that both have been there for long the greater keeps its state.
#[test]
fn of_two_parts_of_a_group_the_greater_lets_the_other_in() {
    let mut town = with_a_state(50);
    town.apart = vec![1];
    town.meet(&[1, 2], SECOND);
    town.meet(&[0], SECOND);
    town.run(Duration::from_millis(100));
    town.cast(0, b"of one");
    (0..2_u64).for_each(|n| town.cast(1, &n.to_le_bytes()));
    town.run(Duration::from_millis(20));
    town.apart.clear();
    assert_eq!(casts_of_all(&mut town), [52; 3]);
}
