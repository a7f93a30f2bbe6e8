//! Members that are slow to take in what the others cast: who they are, what is said of them, and what is done.

mod common;

use std::time::Duration;

use common::live::{Seen, Town};
use wadjet::stack::event::{Holdup, Slow, SlowOutcome};
use wadjet::transport::Received;
use wadjet::wire::full::{Prefix, STACK_CONTROL};
use wadjet::{Config, Incarnation, Time};

const STACK: &str = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
const MARK: [u8; 64] = [9; 64];
const SECOND: Duration = Duration::from_secs(1);

/// Everybody but process `but` casts as much as it may.
fn all_cast(town: &mut Town, but: usize) {
    for at in (0..town.processes.len()).filter(|at| *at != but) {
        let process = &mut town.processes[at];
        // Refused when the way is closed: that is what flow control is for.
        while process.endpoint.group(process.key).cast(&[7; 1000]).is_ok() {}
    }
}

fn cast_for(town: &mut Town, time: Duration, but: usize) {
    town.until(time, |town| {
        all_cast(town, but);
        false
    });
}

fn slow_ones(town: &Town, at: usize) -> Vec<Slow> {
    let slow = |seen: &Seen| if let Seen::Slow(slow) = seen { Some(*slow) } else { None };
    town.processes[at].diary.seen.iter().filter_map(slow).collect()
}

/// Takes in a frame in 160 us: two windows of 64, and what else there is to hear, in more than 20 ms.
const DULL: u32 = 8;

fn with_policy(policy: &str) -> Town {
    ordered_with_policy("", policy)
}

/// With these layers above the membership.
fn ordered_with_policy(order: &str, policy: &str) -> Town {
    let config = Config { window_frames: 64, ..Config::default() };
    // A member that takes in one sender's window before it comes to the other's has not heard that one for long.
    let stack = STACK.replace("SUSPECT", "SUSPECT(least_ms=60,most_ms=60)").replace("FC", policy);
    let mut town = Town::of(3, &stack.replace("MBRSHIP", &format!("{order}MBRSHIP")), &config);
    town.run(Duration::from_millis(5));
    town
}

#[test]
fn a_slow_member_is_named_and_waited_for_and_named_again_when_it_has_caught_up() {
    let mut town = with_policy("FC(slow_ms=5)");
    let begun = town.now;
    town.processes[2].dull = DULL;
    cast_for(&mut town, Duration::from_millis(40), 2);
    assert!(town.together(&[0, 1, 2]), "a slow member is waited for");
    for at in [0, 1] {
        let slow = slow_ones(&town, at);
        let [first, rest @ ..] = &slow[..] else { panic!("{slow:?}") };
        assert_eq!((first.member.0, first.outcome), (2, SlowOutcome::Waits));
        assert!(matches!(first.why, Holdup::Behind { frames: 1..=64 }), "{first:?}");
        assert!(first.since > begun && first.lasting >= Duration::from_millis(5), "{first:?}");
        assert!(rest.iter().all(|slow| slow.member.0 == 2), "nobody else is slow: {rest:?}");
    }
    town.processes[2].dull = 0;
    cast_for(&mut town, Duration::from_millis(20), 2);
    for at in [0, 1] {
        assert_eq!(slow_ones(&town, at).last().map(|slow| slow.outcome), Some(SlowOutcome::CaughtUp));
    }
    let before = slow_ones(&town, 0).len();
    cast_for(&mut town, Duration::from_millis(30), 2);
    assert_eq!(slow_ones(&town, 0).len(), before, "who sets the pace of a busy group is not slow");
}

/// Three of this policy, of whom the last is slow and the others have gone on.
fn without_the_slow(policy: &str) -> Town {
    let mut town = with_policy(policy);
    town.processes[2].dull = DULL;
    let out = town.until(SECOND, |town| {
        all_cast(town, 2);
        town.together(&[0, 1])
    });
    assert!(out, "{:?}", town.processes[0].diary.seen.last());
    town
}

/// What the first is told of how the slow one was expelled.
fn expelled(policy: &str) -> Slow {
    let is_it = |slow: &Slow| matches!(slow.outcome, SlowOutcome::Expelled { .. });
    slow_ones(&without_the_slow(policy), 0).into_iter().find(is_it).expect("it was told")
}

#[test]
fn a_slow_member_is_expelled_where_the_stack_says_so_and_learns_why_and_comes_back_as_a_new_one() {
    let mut town = without_the_slow("FC(slow_ms=5,expel_ms=10)");
    cast_for(&mut town, Duration::from_millis(20), 2);
    for at in [0, 1] {
        let slow = slow_ones(&town, at);
        let Some(Slow { member, outcome: SlowOutcome::Expelled { .. }, lasting, .. }) = slow.last() else {
            panic!("{slow:?}")
        };
        assert_eq!(member.0, 2);
        assert!((Duration::from_millis(10)..Duration::from_millis(15)).contains(lasting), "{lasting:?}");
        let views = town.processes[at].casts_by_view();
        assert!(views.last().unwrap().1.len() > 5_000, "the others go on at their own speed");
    }
    let exits = |town: &mut Town| matches!(town.processes[2].diary.seen.last(), Some(Seen::Exit(_)));
    assert!(town.until(SECOND, exits), "{:?}", town.processes[2].diary.seen.last());
    let Some(Seen::Exit(reason)) = town.processes[2].diary.seen.last() else { unreachable!() };
    assert!(reason.starts_with("expelled: member ") && reason.contains(" waited 1"), "{reason}");
    town.join(&[1]);
    town.meet(&[0, 1, 3], SECOND);
    town.run(Duration::from_millis(100));
    assert!(town.together(&[0, 1, 3]));
}

/// A sender that hears a lot has seldom taken in all of it: what it waits for counts when it has.
#[test]
fn a_sender_that_is_seldom_level_names_and_expels_the_slow_as_others_do() {
    for (policy, expels) in [("FC(slow_ms=5)", false), ("FC(slow_ms=5,expel_ms=10)", true)] {
        let mut town = with_policy(policy);
        town.processes[2].dull = DULL;
        let mut steps = 0;
        let done = town.until(SECOND, |town| {
            all_cast(town, 2);
            steps += 1;
            if steps % 20 != 0 {
                for at in [0, 1] {
                    let now = town.now + common::live::STEP;
                    town.processes[at].endpoint.more_has_come(now);
                }
            }
            let named = [0, 1].iter().all(|at| slow_ones(town, *at).iter().any(|slow| slow.member.0 == 2));
            if expels { town.together(&[0, 1]) } else { named }
        });
        assert!(done, "{policy}: {:?}", slow_ones(&town, 0));
        assert!(town.now < Time::ZERO + Duration::from_millis(60), "{policy}: in good time");
    }
}

#[test]
fn a_member_that_has_not_taken_in_what_has_come_takes_nobody_for_slow() {
    let mut town = with_policy("FC(slow_ms=5,expel_ms=10)");
    town.processes[2].dull = DULL;
    let out = town.until(SECOND, |town| {
        all_cast(town, usize::MAX);
        town.together(&[0, 1])
    });
    assert!(out, "{:?}", town.processes[0].diary.seen.last());
    // What the others have said of its casts waits with all else that has come.
    assert_eq!(slow_ones(&town, 2), []);
    let exits = |town: &mut Town| matches!(town.processes[2].diary.seen.last(), Some(Seen::Exit(_)));
    assert!(town.until(SECOND, exits), "{:?}", town.processes[2].diary.seen.last());
    let Some(Seen::Exit(reason)) = town.processes[2].diary.seen.last() else { unreachable!() };
    assert!(reason.starts_with("expelled: "), "{reason}");
    assert!(town.together(&[0, 1]));
}

#[cfg(feature = "laboratory")]
#[test]
fn who_blames_others_for_what_it_has_not_taken_in_calls_sound_ones_slow() {
    let mut town = with_policy("FC(slow_ms=5,broken=blames-unread)");
    town.processes[2].dull = DULL;
    town.until(Duration::from_millis(40), |town| {
        all_cast(town, usize::MAX);
        false
    });
    assert_ne!(slow_ones(&town, 2), []);
}

#[test]
fn an_expelled_member_that_missed_the_word_hears_it_when_it_speaks_up() {
    let mut town = with_policy("FC(slow_ms=5,expel_ms=10)");
    town.processes[2].dull = DULL;
    // No letter reaches it before the others have gone on.
    let deaf = std::rc::Rc::new(std::cell::Cell::new(true));
    let is_deaf = std::rc::Rc::clone(&deaf);
    town.lose = Box::new(move |at, received| {
        let letter = Prefix::decode(received.bytes())
            .is_ok_and(|(prefix, ..)| prefix.control == wadjet::wire::outside::OUTSIDE_CONTROL);
        at == 2 && letter && is_deaf.get()
    });
    let out = town.until(SECOND, |town| {
        all_cast(town, 2);
        town.together(&[0, 1])
    });
    assert!(out);
    deaf.set(false);
    let exits = |town: &mut Town| matches!(town.processes[2].diary.seen.last(), Some(Seen::Exit(_)));
    assert!(town.until(SECOND, exits), "{:?}", town.processes[2].diary.seen.last());
    let Some(Seen::Exit(reason)) = town.processes[2].diary.seen.last() else { unreachable!() };
    assert!(reason.starts_with("expelled: "), "{reason}");
}

/// Nothing comes in at a member that casts, for less than its time-out, while the others take in what it casts: how many are
/// in its view in the end.
fn left_by_the_deaf(policy: &str, deaf: u64) -> usize {
    let config = Config { window_frames: 64, ..Config::default() };
    let stack = STACK.replace("SUSPECT", "SUSPECT(least_ms=60,most_ms=60)").replace("FC", policy);
    let mut town = Town::of(4, &stack, &config);
    let casts = |town: &mut Town| {
        let process = &mut town.processes[0];
        let _ = process.endpoint.group(process.key).cast(&[7; 1000]);
        false
    };
    town.until(Duration::from_millis(5), casts);
    town.lose = Box::new(|at, _| at == 0);
    town.until(Duration::from_millis(deaf), casts);
    town.lose = Box::new(|_, _| false);
    town.until(Duration::from_millis(20), casts);
    town.processes[0].view().1.len()
}

#[test]
fn a_member_that_hears_nobody_for_a_while_expels_none_of_those_that_it_waits_for() {
    for (expel, deaf) in [(2, 2), (2, 5), (2, 8), (2, 40), (5, 13), (10, 13), (10, 40)] {
        let policy = format!("FC(slow_ms=5,expel_ms={expel})");
        assert_eq!(left_by_the_deaf(&policy, deaf), 4, "{policy}, deaf for {deaf} ms");
    }
}

/// What the others say meanwhile waits behind what one of them has cast, and may be there already.
#[test]
fn a_member_that_takes_its_time_with_what_one_has_cast_takes_no_other_for_failed() {
    for (dull, bytes) in [(1, 16 << 20), (3, 4 << 20), (5, 1 << 20), (5, 4 << 20)] {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        town.processes[2].dull = dull;
        let process = &mut town.processes[1];
        process.endpoint.group(process.key).cast(&vec![7; bytes]).unwrap();
        let case = format!("{bytes} bytes, a frame in {} us", 20 * dull);
        let taken_in = |town: &mut Town| {
            town.processes[2]
                .diary
                .seen
                .iter()
                .any(|seen| matches!(seen, Seen::Cast(_, cast) if cast.len() == bytes))
        };
        assert!(town.until(20 * SECOND, taken_in), "{case}");
        assert!(town.together(&[0, 1, 2]), "{case}");
        (0..3).for_each(|at| assert_eq!(town.suspicions(at), [], "{case}: {at}"));
        // Who is silent is found out as ever.
        town.processes[0].stopped = true;
        town.run(Duration::from_millis(60));
        assert!(town.together(&[1, 2]), "{case}");
    }
}

/// Heard once a beat, a member counts for half of the time if that is two beats: no more than a quarter is taken at once.
#[test]
fn a_slow_member_that_is_heard_is_expelled_in_time_however_short_it_is() {
    for (expel, most) in [(2, 6), (4, 6)] {
        let slow = expelled(&format!("FC(slow_ms=5,expel_ms={expel})"));
        let lasting = Duration::from_millis(expel)..Duration::from_millis(most);
        assert!(slow.member.0 == 2 && lasting.contains(&slow.lasting), "{slow:?}");
    }
}

/// After what time it is said that a member is slow does not decide how long it takes until it is expelled.
#[test]
fn a_slow_member_of_which_it_is_said_early_is_expelled_when_it_is_time() {
    let slow = expelled("FC(slow_ms=1,expel_ms=8)");
    assert!(slow.lasting < Duration::from_millis(12), "{slow:?}");
}

#[cfg(feature = "laboratory")]
#[test]
fn who_blames_those_that_it_does_not_hear_expels_sound_ones() {
    let left = left_by_the_deaf("FC(slow_ms=5,expel_ms=2,broken=blames-the-unheard)", 8);
    assert!(left < 4, "{left}");
}

/// Who holds the senders holds its own casts, too, and nobody else is to blame for that.
#[test]
fn a_member_that_holds_the_senders_waits_for_nobody() {
    let mut town = with_policy("FC(slow_ms=5,expel_ms=10)");
    town.processes[2].stopped = true;
    let only_the_first = |town: &mut Town| {
        let process = &mut town.processes[0];
        while process.endpoint.group(process.key).cast(b"cast").is_ok() {}
        town.run(Duration::from_millis(1));
    };
    (0..7).for_each(|_| only_the_first(&mut town));
    assert_eq!(slow_ones(&town, 0).len(), 1, "it is waited for already");
    town.processes[2].stopped = false;
    let process = &mut town.processes[0];
    process.endpoint.group(process.key).hold_senders();
    town.processes[0].diary.behind = true;
    (0..40).for_each(|_| only_the_first(&mut town));
    assert!(town.together(&[0, 1, 2]));
}

/// Whoever is behind still orders what others cast and passes its turn on: they go on until it gives no more credit, and are told
/// for whom they wait then.
#[test]
fn a_member_that_holds_the_senders_holds_nobody_up_by_the_order_of_casts() {
    for (order, at) in ["", "TOTAL:", "SEQUENCER:", "SAFE:TOTAL:", "SAFE:SEQUENCER:"]
        .into_iter()
        .flat_map(|order| [(order, 0), (order, 2)])
    {
        let falls_behind = |policy: &str| {
            let mut town = ordered_with_policy(order, policy);
            let process = &mut town.processes[at];
            process.endpoint.group(process.key).hold_senders();
            process.diary.behind = true;
            town.run(Duration::from_millis(5));
            // Its own waits until it is behind no more.
            town.cast(at, b"its own");
            town
        };
        let cast = |message: &[u8]| Seen::Cast(2, message.to_vec());
        let mut town = falls_behind("FC(slow_ms=5)");
        town.cast(1, b"hello");
        let all = |town: &mut Town| (0..3).all(|at| town.processes[at].diary.seen.contains(&cast(b"hello")));
        assert!(town.until(SECOND / 10, all), "{order}, member {at}");
        let own = Seen::Cast(at as u64 + 1, b"its own".to_vec());
        assert!(!town.processes[1].diary.seen.contains(&own), "{order}, member {at}");
        town.processes[at].diary.behind = false;
        let own = |town: &mut Town| town.processes[1].diary.seen.contains(&own);
        assert!(town.until(SECOND / 10, own), "{order}, member {at}");

        let mut town = falls_behind("FC(slow_ms=5,expel_ms=20)");
        let rest: Vec<usize> = (0..3).filter(|other| *other != at).collect();
        let left = town.until(SECOND, |town| {
            for other in &rest {
                let process = &mut town.processes[*other];
                while process.endpoint.group(process.key).cast(b"cast").is_ok() {}
            }
            town.together(&rest)
        });
        assert!(left, "{order}, member {at}");
        assert!(rest.iter().any(|other| !slow_ones(&town, *other).is_empty()), "{order}, member {at}");
    }
}

#[test]
fn time_in_which_nobody_ran_makes_nobody_slow() {
    let mut town = with_policy("FC(slow_ms=10,expel_ms=20)");
    for _ in 0..20 {
        cast_for(&mut town, Duration::from_micros(500), 2);
        town.now = town.now + SECOND;
    }
    cast_for(&mut town, Duration::from_millis(5), 2);
    assert!(town.together(&[0, 1, 2]));
    assert_eq!(slow_ones(&town, 0), []);
}

/// Two that do not hear each other, and one that hears both: it waits for what the suspected one lacks until it takes the
/// suspicion over, and gives the other one no credit meanwhile.
#[test]
fn who_waits_for_a_member_of_which_only_another_knows_that_it_has_failed_is_not_slow() {
    let config = Config { window_frames: 64, ..Config::default() };
    let mut town = Town::of(3, &STACK.replace("FC", "FC(slow_ms=5,expel_ms=5)"), &config);
    town.run(Duration::from_millis(150));
    town.lose = Box::new(|at, received| {
        let marked = || received.bytes().windows(MARK.len()).any(|bytes| bytes == MARK);
        at == 1 && is_from(received, 3) || at == 2 && (is_from(received, 2) || marked())
    });
    let suspects = |town: &mut Town| {
        town.processes[1]
            .diary
            .seen
            .iter()
            .any(|seen| matches!(seen, Seen::Suspect(found) if found.member.0 == 2))
    };
    assert!(town.until(Duration::from_millis(30), suspects));
    town.until(Duration::from_millis(100), |town| {
        let process = &mut town.processes[1];
        while process.endpoint.group(process.key).cast(&MARK).is_ok() {}
        town.together(&[0, 1])
    });
    assert!(town.together(&[0, 1]), "they go on together");
    assert_eq!(slow_ones(&town, 1), []);
}

/// Four of this stack with windows of 64. Processes 0, 1 and 3 cast as much as they may, and a cast keeps 2 busy for so many steps:
/// what it has not read yet holds frames for control messages.
fn with_much_to_take_in(stack: &str, control_frames: usize, work: u32) -> Town {
    let config = Config { window_frames: 64, control_frames, ..Config::default() };
    let mut town = Town::of(4, stack, &config);
    town.processes[2].work = work;
    town.until(Duration::from_millis(300), cast_on);
    town
}

fn cast_on(town: &mut Town) -> bool {
    for at in [0, 1, 3] {
        let process = &mut town.processes[at];
        let mut group = process.endpoint.group(process.key);
        let _ = group.writable() && group.cast(&[7; 1000]).is_ok();
    }
    false
}

/// When the last leaves, or one more wants in, 2 is 400 ms behind, at 2 ms a cast. How long it takes until the others are in the next
/// view.
fn changes_view_with_much_to_take_in(stack: &str, control_frames: usize, leaves: bool) -> Option<Duration> {
    let mut town = with_much_to_take_in(stack, control_frames, 100);
    let whom = if leaves {
        let process = &mut town.processes[3];
        process.endpoint.group(process.key).leave();
        vec![0, 1, 2]
    } else {
        vec![0, 1, 2, 3, town.join(&[1])]
    };
    let begun = town.now;
    let done = town.until(2 * SECOND, |town| cast_on(town) || town.together(&whom));
    done.then(|| town.now.since(begun))
}

/// Longer than a guest waits for a host that says nothing, however often one has not let it in: where all work all the time it never came
/// in, and every try was a view change in which nobody cast.
#[test]
fn who_wants_in_while_somebody_has_much_to_take_in_is_let_in_by_the_view_change_that_it_waits_for() {
    let mut town = with_much_to_take_in(STACK, 512, 400);
    let (views, begun) = (town.counted(0, "view decided"), town.now);
    let new = town.join(&[1]);
    let all = [0, 1, 2, 3, new];
    assert!(town.until(4 * SECOND, |town| cast_on(town) || town.together(&all)));
    let took = town.now.since(begun);
    assert!(took > Duration::from_secs(1), "2 is behind: {took:?}");
    assert_eq!(town.counted(new, "merge given up"), 0);
    assert_eq!(town.counted(0, "view decided") - views, 1);
}

#[test]
fn who_has_much_to_take_in_before_a_view_change_is_waited_for_as_long_as_it_goes_on() {
    for leaves in [true, false] {
        let took = changes_view_with_much_to_take_in(STACK, 128, leaves);
        assert!(took.is_some_and(|took| took > Duration::from_millis(300)), "{leaves}: {took:?}");
    }
}

#[test]
fn who_goes_on_for_too_long_in_a_view_change_is_left_behind() {
    let stack = STACK.replace("MBRSHIP", "MBRSHIP(flush_ms=10)");
    assert_eq!(changes_view_with_much_to_take_in(&stack, 512, true), None);
}

fn is_from(received: &Received, origin: u64) -> bool {
    Prefix::decode(received.bytes())
        .is_ok_and(|(prefix, ..)| prefix.identification.origin == Incarnation(origin))
}

/// Three of this policy, of whom the second does not hear the third, for less than its time-out, while the first casts all it may.
fn one_does_not_hear_another(policy: &str) -> Town {
    let mut town = with_policy(policy);
    town.lose = Box::new(|at, received| at == 1 && is_from(received, 3));
    town.until(Duration::from_millis(40), |town| {
        let process = &mut town.processes[0];
        while process.endpoint.group(process.key).cast(&[7; 1000]).is_ok() {}
        false
    });
    town
}

/// What all hold it hears of who has cast it.
#[test]
fn a_member_that_does_not_hear_another_for_a_while_gives_credit_all_the_same() {
    let town = one_does_not_hear_another("FC");
    for at in 0..3 {
        let casts = town.processes[at].casts_by_view().pop().map_or(0, |(_, casts)| casts.len());
        assert!(casts > 10 * 64, "{at}: {casts} casts, of windows of 64");
        assert_eq!(town.suspicions(at), []);
    }
}

#[test]
fn a_member_that_does_not_hear_another_for_a_while_is_not_expelled() {
    for expel in [2, 5, 10] {
        let mut town = one_does_not_hear_another(&format!("FC(slow_ms=2,expel_ms={expel})"));
        assert!(town.together(&[0, 1, 2]), "expel_ms={expel}");
        assert_eq!(slow_ones(&town, 0), [], "expel_ms={expel}: nobody is called slow either");
    }
}

/// The sequencer does not hear the third, may cast no more, and cannot say an order: what the second has cast waits there, and it is
/// no fault of the sequencer's that it has no room for more.
#[test]
fn a_member_that_waits_for_the_order_of_what_it_has_is_not_expelled() {
    for expel in [5, 10, 20] {
        let mut town = ordered_with_policy("SEQUENCER:", &format!("FC(slow_ms=2,expel_ms={expel})"));
        town.lose = Box::new(|at, received| at == 0 && is_from(received, 3));
        cast_for(&mut town, Duration::from_millis(40), 2);
        assert!(town.together(&[0, 1, 2]), "expel_ms={expel}");
        assert_eq!(slow_ones(&town, 1), [], "expel_ms={expel}: nobody is called slow either");
    }
}

/// Three of this policy, of whom the first casts all it may while it gets no report of the second, which has taken in all of it, and
/// whose heartbeats come. Then either the reports are lost that were asked for, or what asks for them.
fn left_by_who_gets_no_report(policy: &str, asks_are_lost: bool) -> usize {
    let mut town = with_policy(policy);
    let casts = |town: &mut Town| {
        let process = &mut town.processes[0];
        while process.endpoint.group(process.key).cast(&[7; 1000]).is_ok() {}
        false
    };
    let is_row = |received: &Received, origin: u64| {
        let prefix = Prefix::decode(received.bytes());
        is_from(received, origin) && prefix.is_ok_and(|(prefix, ..)| prefix.control == STACK_CONTROL)
    };
    town.lose = Box::new(move |at, received| at == 0 && is_row(received, 2));
    town.until(Duration::from_millis(2), casts);
    if asks_are_lost {
        town.lose = Box::new(move |at, received| at == 1 && is_row(received, 1));
    }
    town.until(Duration::from_millis(40), casts);
    town.lose = Box::new(|_, _| false);
    town.until(Duration::from_millis(20), casts);
    town.processes[0].view().1.len()
}

#[test]
fn a_member_is_charged_with_no_time_in_which_its_reports_were_lost_or_nobody_asked_for_them() {
    for expel in [2, 5, 10] {
        let policy = format!("FC(slow_ms=2,expel_ms={expel})");
        for asks_are_lost in [false, true] {
            let left = left_by_who_gets_no_report(&policy, asks_are_lost);
            assert_eq!(left, 3, "{policy}, asks are lost: {asks_are_lost}");
        }
    }
}

/// The first has cast what the third does not get, takes it for failed, tells the second what all hold, and is gone before they
/// agree on anything: whether the two that are left have the same of it.
fn goes_on_with_what_the_failed_lacked(stable: &str) -> bool {
    let mut town = Town::of(3, &STACK.replace("STABLE", stable), &Config::default());
    town.run(Duration::from_millis(150));
    town.lose = Box::new(|at, received| {
        let control = Prefix::decode(received.bytes()).map_or(0, |(prefix, ..)| prefix.control);
        let marked = received.bytes().windows(MARK.len()).any(|bytes| bytes == MARK);
        // It tells them nothing but what it reports.
        at == 0 && is_from(received, 3)
            || at > 0 && is_from(received, 1) && !(control == STACK_CONTROL || marked)
            || at == 2 && marked
    });
    for _ in 0..10 {
        town.cast(0, &MARK);
    }
    // What comes in it reports.
    town.until(Duration::from_millis(35), |town| {
        let process = &mut town.processes[1];
        let _ = process.endpoint.group(process.key).cast(b"heard");
        false
    });
    assert!(town.suspicions(0).iter().any(|(member, _)| *member == 2));
    assert_eq!([town.suspicions(1), town.suspicions(2)], [[], []]);
    town.processes[0].stopped = true;
    town.lose = Box::new(|_, _| false);
    town.until(SECOND, |town| town.together(&[1, 2]));
    let marks = |town: &Town, at: usize| {
        let seen = town.processes[at].diary.seen.iter();
        seen.filter(|seen| matches!(seen, Seen::Cast(1, _))).count()
    };
    assert_eq!(marks(&town, 1), 10);
    town.together(&[1, 2]) && marks(&town, 2) == 10
}

#[test]
fn what_a_member_lacks_that_one_takes_for_failed_others_keep_for_it() {
    assert!(goes_on_with_what_the_failed_lacked("STABLE"));
}

#[cfg(feature = "laboratory")]
#[test]
fn who_tells_that_all_hold_what_the_failed_lack_costs_them_that() {
    assert!(!goes_on_with_what_the_failed_lacked("STABLE(broken=leaves-out-the-failed)"));
}
