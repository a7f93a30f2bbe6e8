//! State transfer: who comes in gets the state at the cut of its view, whatever happens meanwhile. With the shadow on.

mod common;
#[path = "common/storm.rs"]
mod storm;

use std::time::Duration;

use common::live::{Seen, Town};
use storm::{BALLAST, Storm, stack};
use wadjet::stack::explain::explain;
use wadjet::stack::registry::Registry;
use wadjet::{Config, Rank, RankSet};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn who_comes_in_has_the_state_of_the_cut_and_delivers_the_rest() {
    let mut storm = Storm::of(3, "", BALLAST);
    let new = storm.join(2);
    storm.settle(&[0, 1, 2, new]);
    assert_eq!(storm.replica(0).snapshots, 1);
    assert_eq!(storm.replica(1).snapshots + storm.replica(2).snapshots, 0, "one donor is enough");
    assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1));
    // The next one gets it from the lowest again; the one that came in last knows that it is not the donor.
    let next = storm.join(4);
    storm.settle(&[0, 1, 2, new, next]);
    assert_eq!((storm.replica(0).snapshots, storm.replica(new).snapshots), (2, 0));
}

/// They would come back above XFER, and be delivered before the state that they are to change.
#[test]
fn a_stack_in_which_own_casts_would_not_wait_for_the_state_is_refused() {
    let rest = "MBRSHIP:SUSPECT:STABLE:UNICAST:NAK:CHKSUM:COM";
    let explained = |spec: &str| explain(&Registry::standard(), spec, 2, true);
    for top in ["LOCAL:XFER", "XFER"] {
        let refused = explained(&format!("{top}:{rest}")).expect_err(top).to_string();
        assert!(refused.contains("XFER requires P25") && refused.contains("put LOCAL below it"), "{refused}");
    }
    explained(&format!("XFER:{}", rest.replace("NAK", "LOCAL:NAK"))).expect("own casts wait");
}

#[test]
fn a_member_that_came_in_is_a_donor_when_the_others_are_gone() {
    let mut storm = Storm::of(1, "", BALLAST);
    let second = storm.join(1);
    storm.settle(&[0, second]);
    storm.town.processes[0].stopped = true;
    let third = storm.join(2);
    storm.settle(&[second, third]);
    assert_eq!(storm.replica(second).snapshots, 1);
}

#[test]
fn two_that_come_in_at_once_share_a_snapshot() {
    let mut storm = Storm::of(2, "", BALLAST);
    let (a, b) = (storm.join(1), storm.join(2));
    storm.settle(&[0, 1, a, b]);
    assert!(storm.replica(0).snapshots <= 2, "one for both, or one each if they came one after the other");
}

#[test]
fn the_donor_dies_half_way_and_the_next_one_begins_anew() {
    let mut storm = Storm::of(3, "", BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    storm.town.processes[0].stopped = true;
    storm.settle(&[1, 2, new]);
    assert_eq!((storm.replica(1).snapshots, storm.replica(2).snapshots), (1, 0));
    let replica = storm.replica(new);
    assert_eq!((replica.begun, replica.installed), (2, 1));
}

#[test]
fn the_donor_leaves_half_way_and_the_next_one_begins_anew() {
    let mut storm = Storm::of(2, "", BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    let donor = &mut storm.town.processes[0];
    donor.endpoint.group(donor.key).leave();
    storm.settle(&[1, new]);
    assert_eq!(storm.replica(1).snapshots, 1);
}

/// Whether a process was told of a problem in these words.
fn has_problem(storm: &Storm, at: usize, words: &str) -> bool {
    let mut seen = storm.town.processes[at].diary.seen.iter();
    seen.any(|seen| matches!(seen, Seen::Problem(why) if why.contains(words)))
}

#[test]
fn a_donor_that_cannot_read_its_snapshot_says_so_and_the_next_one_gives_the_state() {
    for readable in [0, 100_000, BALLAST] {
        let mut storm = Storm::of(3, "", BALLAST);
        storm.replica(0).readable = Some(readable);
        let new = storm.join(2);
        storm.settle(&[0, 1, 2, new]);
        assert_eq!([0, 1, 2].map(|at| storm.replica(at).snapshots), [1, 1, 0], "readable {readable}");
        assert_eq!(storm.replica(new).begun, 1 + usize::from(readable > 0));
        assert_eq!(storm.replica(new).installed, 1);
        assert!(has_problem(&storm, 0, "could not be read for members that came in (the disk is damaged)"));
        for at in [0, 1, 2, new] {
            let mut seen = storm.town.processes[at].diary.seen.iter();
            assert!(!seen.any(|seen| matches!(seen, Seen::StateLost(_) | Seen::Suspect(_) | Seen::Exit(_))));
            assert!(at == 0 || !has_problem(&storm, at, ""), "{at}");
        }
        // Nobody waits any more: it is the donor again, whether it can read now or not.
        let next = storm.join(2);
        storm.settle(&[0, 1, 2, new, next]);
        assert_eq!([0, 1].map(|at| storm.replica(at).snapshots), [2, 2]);
        storm.replica(0).readable = None;
        let last = storm.join(2);
        storm.settle(&[0, 1, 2, new, next, last]);
        assert_eq!([0, 1].map(|at| storm.replica(at).snapshots), [3, 2]);
    }
}

#[test]
fn donors_that_cannot_read_are_passed_over_until_one_can() {
    let mut storm = Storm::of(3, "", BALLAST);
    storm.replica(0).readable = Some(BALLAST / 2);
    storm.replica(1).readable = Some(10_000);
    let (a, b) = (storm.join(2), storm.join(1));
    storm.settle(&[0, 1, 2, a, b]);
    assert!(storm.replica(2).snapshots >= 1);
    for at in [a, b] {
        assert_eq!(storm.replica(at).installed, 1);
    }
    // One that came in can read what it was given.
    storm.replica(2).readable = Some(0);
    let last = storm.join(1);
    storm.settle(&[0, 1, 2, a, b, last]);
    assert_eq!(storm.replica(a).snapshots + storm.replica(b).snapshots, 1);
}

#[test]
fn who_has_got_all_of_it_from_a_donor_that_then_cannot_read_gives_it_on() {
    let mut storm = Storm::of(1, "", BALLAST);
    let late = storm.join(1);
    storm.nearly_whole(late);
    storm.replica(0).readable = Some(BALLAST / 3);
    let new = storm.join(1);
    storm.until("the failure", |storm| has_problem(storm, 0, "could not be read"));
    storm.run(Duration::from_millis(20));
    assert_eq!(storm.replica(new).installed, 0, "nobody can give it yet");
    storm.replica(late).reluctant = 0;
    storm.settle(&[0, late, new]);
    assert_eq!((storm.replica(0).snapshots, storm.replica(late).snapshots), (2, 1));
    assert_eq!((storm.replica(late).installed, storm.replica(new).installed), (1, 1));
}

#[test]
fn when_nobody_can_read_the_state_those_who_wait_for_it_leave() {
    let mut storm = Storm::of(2, "", BALLAST);
    storm.replica(0).readable = Some(100_000);
    storm.replica(1).readable = Some(0);
    let new = storm.join(1);
    storm.until("the exit", |storm| {
        matches!(storm.town.processes[new].diary.seen.last(), Some(Seen::Exit(_)))
    });
    let seen = &storm.town.processes[new].diary.seen;
    let lost = seen.iter().position(|seen| matches!(seen, Seen::StateLost(false))).expect("it is told");
    assert!(
        matches!(&seen[lost + 1..], [Seen::Problem(why), .., Seen::Exit(_)] if why.contains("can read it")),
        "{seen:?}"
    );
    assert_eq!(storm.replica(new).installed, 0, "a part is not the state");
    storm.settle(&[0, 1]);
    storm.replica(0).readable = None;
    let next = storm.join(1);
    storm.settle(&[0, 1, next]);
}

#[test]
fn when_nobody_can_read_the_state_the_first_goes_on_if_the_stack_says_so() {
    let mut storm = Storm::of(1, ",lost=go_on", BALLAST);
    storm.replica(0).readable = Some(100_000);
    let first = storm.join(1);
    storm.until("the view of both", |storm| storm.told(&[0, first]));
    let lost = |storm: &Storm, at: usize| {
        storm.town.processes[at].diary.seen.iter().any(|seen| matches!(seen, Seen::StateLost(true)))
    };
    assert!(lost(&storm, first) && !lost(&storm, 0));
    let next = storm.join(1);
    storm.until("the state of the first", |storm| storm.replica(next).installed == 1);
    assert_eq!((storm.replica(0).snapshots, storm.replica(first).snapshots), (2, 1));
}

#[test]
fn who_dies_half_way_through_the_transfer_is_left_out() {
    let mut storm = Storm::of(2, "", BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    storm.town.processes[new].stopped = true;
    storm.settle(&[0, 1]);
    let another = storm.join(1);
    storm.settle(&[0, 1, another]);
}

#[test]
fn another_comes_in_while_one_is_half_way() {
    let mut storm = Storm::of(2, "", BALLAST);
    let first = storm.join(1);
    storm.half_way(first);
    let second = storm.join(1);
    storm.settle(&[0, 1, first, second]);
}

#[test]
fn when_nobody_has_the_state_any_more_those_who_wait_for_it_leave() {
    let mut storm = Storm::of(1, "", BALLAST);
    let (a, b) = (storm.join(1), storm.join(1));
    storm.half_way(a);
    storm.half_way(b);
    storm.town.processes[0].stopped = true;
    storm.until("the exits", |storm| {
        [a, b].iter().all(|at| matches!(storm.town.processes[*at].diary.seen.last(), Some(Seen::Exit(_))))
    });
    for at in [a, b] {
        let seen = &storm.town.processes[at].diary.seen;
        let lost = seen.iter().position(|seen| matches!(seen, Seen::StateLost(false))).expect("it is told");
        assert!(
            matches!(&seen[lost + 1..], [Seen::Problem(why), .., Seen::Exit(_)] if why.contains("are gone")),
            "{seen:?}"
        );
        assert_eq!(storm.replica(at).snapshots, 0, "nobody gives on what is not whole");
    }
}

#[test]
fn when_nobody_has_the_state_any_more_the_first_goes_on_if_the_stack_says_so() {
    let mut storm = Storm::of(1, ",lost=go_on", BALLAST);
    let (a, b) = (storm.join(1), storm.join(1));
    storm.half_way(a);
    storm.half_way(b);
    storm.town.processes[0].stopped = true;
    storm.settle(&[a, b]);
    let told = |storm: &Storm, at: usize| {
        let seen = storm.town.processes[at].diary.seen.iter();
        seen.filter(|seen| matches!(seen, Seen::StateLost(true))).count()
    };
    // What both cast while the first one waited is in no state: it is not only the one that goes on with its own.
    assert_eq!([told(&storm, a), told(&storm, b)], [1, 1]);
    let another = storm.join(2);
    storm.settle(&[a, b, another]);
    assert_eq!(told(&storm, another), 0, "it has lost nothing");
}

#[test]
fn who_cannot_take_the_state_in_leaves_and_nobody_else_is_disturbed() {
    let mut storm = Storm::of(2, "", BALLAST);
    let new = storm.join(1);
    storm.replica(new).refuse_beyond = Some(100_000);
    storm.until("the exit", |storm| {
        matches!(storm.town.processes[new].diary.seen.last(), Some(Seen::Exit(_)))
    });
    let seen = &storm.town.processes[new].diary.seen;
    let Some(problem) =
        seen.iter().position(|seen| matches!(seen, Seen::Problem(why) if why.contains("the disk is full")))
    else {
        panic!("{seen:?}")
    };
    assert!(
        matches!(&seen[problem + 1..], [.., Seen::Exit(why)] if why.contains("could not take over")),
        "{seen:?}"
    );
    assert!(!seen[problem..].iter().any(|seen| matches!(seen, Seen::Cast(..) | Seen::View(..))));
    storm.settle(&[0, 1]);
    for at in [0, 1] {
        let suspects =
            storm.town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::Suspect(_)));
        assert_eq!(suspects.count(), 0, "it leaves in order");
    }
}

#[test]
fn an_application_without_a_state_gives_none_and_takes_none() {
    let mut town = Town::of(2, &stack(""), &Config::default());
    town.run(Duration::from_millis(10));
    let new = town.join(&[1]);
    town.meet(&[0, 1, new], SECOND);
    town.cast(0, b"hello");
    town.run(Duration::from_millis(10));
    let seen = &town.processes[new].diary.seen;
    assert!(
        matches!(&seen[..], [.., Seen::View(_, members), Seen::Cast(1, _)] if members.len() == 3),
        "{seen:?}"
    );
}

#[test]
fn what_was_delivered_in_the_view_waits_until_it_is_told() {
    let mut storm = Storm::of(2, "", BALLAST);
    let new = storm.join(1);
    let own = storm.town.processes[new].endpoint.incarnation().0;
    storm.settle(&[0, 1, new]);
    let seen = &storm.town.processes[new].diary.seen;
    let view =
        seen.iter().position(|seen| matches!(seen, Seen::View(_, members) if members.len() == 3)).unwrap();
    let casts = |origin: u64| {
        let casts = seen[view..].iter().filter(|seen| matches!(seen, Seen::Cast(from, _) if *from == origin));
        casts.count()
    };
    assert!(casts(1) > 0 && casts(2) > 0 && casts(own) > 0, "its own casts wait like all others");
    let held = storm.town.processes[0].endpoint.stats(storm.town.processes[0].key).counts;
    assert!(held.iter().any(|count| count.what == "state given"), "{held:?}");
}

#[test]
fn a_full_hold_makes_the_senders_wait_and_nothing_is_lost() {
    let mut storm = Storm::of(3, ",hold_kib_max=8", BALLAST);
    let new = storm.join(1);
    storm.settle(&[0, 1, 2, new]);
    let counts = storm.town.processes[0].endpoint.stats(storm.town.processes[0].key).counts;
    assert!(
        counts.iter().any(|count| count.what == "casts held for a member without the state"),
        "{counts:?}"
    );
    // Held no longer: casts go on.
    storm.settle(&[0, 1, 2, new]);
}

#[test]
fn who_is_full_and_dies_holds_nobody_any_longer() {
    let mut storm = Storm::of(2, ",hold_kib_max=8", BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    storm.town.processes[new].stopped = true;
    storm.settle(&[0, 1]);
}

#[test]
fn a_full_hold_makes_the_joiner_leave_if_the_stack_says_so() {
    let mut storm = Storm::of(2, ",hold_kib_max=8,full=leave", BALLAST);
    let new = storm.join(1);
    storm.until("the exit", |storm| {
        matches!(storm.town.processes[new].diary.seen.last(), Some(Seen::Exit(_)))
    });
    let seen = &storm.town.processes[new].diary.seen;
    assert!(
        seen.iter().any(|seen| matches!(seen, Seen::Problem(why) if why.contains("hold_kib_max"))),
        "{seen:?}"
    );
    storm.settle(&[0, 1]);
}

#[test]
fn sends_to_who_comes_in_get_their_turn_while_the_state_is_on_its_way() {
    let spec = format!("XFER:{}", wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY);
    let mut storm = Storm::over(Town::of(2, &spec, &Config::default()), 16 * BALLAST);
    let new = storm.join(1);
    storm.until("the transfer", |storm| !storm.replica(new).received.is_empty());
    let (mut taken, mut tried) = (0, 0);
    storm.until("the state", |storm| {
        let process = &mut storm.town.processes[0];
        let mut group = process.endpoint.group(process.key);
        tried += 1;
        taken += usize::from(group.send(&RankSet::one(Rank(2)), b"meanwhile").is_ok());
        storm.replica(new).installed > 0
    });
    // They share the way with the parts: without turns of their own three are taken.
    assert!(taken > 10, "only {taken} of {tried} sends were taken");
    storm.settle(&[0, 1, new]);
    let seen = &storm.town.processes[new].diary.seen;
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Send(..))).count(), taken);
}

#[test]
fn a_send_to_who_waits_for_the_state_arrives_though_the_view_changes() {
    let mut storm = Storm::of(2, "", 16 * BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    let long = [7; 5000];
    for payload in [&b"one"[..], &long, b"three"] {
        let process = &mut storm.town.processes[1];
        process.endpoint.group(process.key).send(&RankSet::one(Rank(2)), payload).unwrap();
    }
    storm.run(Duration::from_millis(1));
    let third = storm.join(1);
    storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 4);
    storm.town.processes[0].stopped = true;
    storm.settle(&[1, new, third]);
    assert!(storm.replica(new).begun > 1, "the transfer was begun anew");
    let seen = &storm.town.processes[new].diary.seen;
    let sends: Vec<_> = seen.iter().filter(|seen| matches!(seen, Seen::Send(..))).collect();
    let expected = [&b"one"[..], &long, b"three"].map(|payload| Seen::Send(2, payload.to_vec()));
    assert_eq!(sends, expected.iter().collect::<Vec<_>>());
    let view = seen.iter().position(|seen| matches!(seen, Seen::View(_, members) if members.len() == 3));
    assert!(view < seen.iter().position(|seen| matches!(seen, Seen::Send(..))), "the view comes first");
}

#[test]
fn who_could_not_take_the_state_in_is_not_given_it_again() {
    let mut storm = Storm::of(2, "", BALLAST);
    let new = storm.join(1);
    storm.replica(new).refuse_beyond = Some(100_000);
    storm.until("the refusal", |storm| {
        let mut seen = storm.town.processes[new].diary.seen.iter();
        seen.any(|seen| matches!(seen, Seen::Problem(why) if why.contains("the disk is full")))
    });
    let snapshots = storm.replica(0).snapshots;
    // A view change that has it among its members: it does not get as far as leaving.
    storm.settle(&[0, 1]);
    assert_eq!(storm.replica(0).snapshots, snapshots);
    let counts = storm.town.processes[0].endpoint.stats(storm.town.processes[0].key).counts;
    assert!(counts.iter().any(|count| count.what == "state refused by its receiver"), "{counts:?}");
}

#[test]
fn loss_of_a_third_of_all_frames_changes_nothing() {
    let mut storm = Storm::of(2, "", BALLAST / 8);
    let mut random = 1u64;
    storm.town.lose = Box::new(move |_, _| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % 10 < 3
    });
    let new = storm.join(1);
    storm.until("the state", |storm| storm.replica(new).installed > 0);
    storm.town.lose = Box::new(|_, _| false);
    storm.settle(&[0, 1, new]);
}

#[test]
fn of_two_groups_that_meet_the_state_of_the_one_that_lets_the_other_in_counts() {
    let mut storm = Storm::over(Town::new(&stack(""), &Config::default()), 0);
    // It looks for the second process, which is not there yet, at growing intervals.
    let alone = storm.join(2);
    storm.run(Duration::from_millis(2));
    storm.calm = true;
    storm.run(Duration::from_millis(400));
    assert!(!storm.replica(alone).state.is_empty(), "it has a state of its own");
    let (b, c) = (storm.join(9), storm.join(2));
    storm.replica(b).ballast_bytes = BALLAST;
    storm.calm = false;
    storm.settle(&[b, c]);
    storm.settle(&[alone, b, c]);
    assert_eq!((storm.replica(alone).installed, storm.replica(alone).snapshots), (1, 0));
}

/// The members of the views that a process was told of, by number, from its first on.
fn sizes(storm: &Storm, at: usize) -> Vec<usize> {
    let seen = storm.town.processes[at].diary.seen.iter();
    seen.filter_map(|seen| match seen {
        Seen::View(_, members) => Some(members.len()),
        _ => None,
    })
    .collect()
}

#[test]
fn a_transfer_goes_on_though_the_view_changes_every_few_parts() {
    let mut storm = Storm::of(8, "", 4 * BALLAST);
    let new = storm.join(1);
    // Everybody is answered by who comes in, as soon as it hears of the cast: whom it names is whom it means.
    storm.town.processes[new].diary.answers = true;
    for gone in (2..8).rev() {
        let before = storm.replica(new).received.len();
        storm.until("a few parts", |storm| storm.replica(new).received.len() > before + BALLAST / 4);
        let process = &mut storm.town.processes[gone];
        process.endpoint.group(process.key).leave();
        storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == gone + 1);
    }
    assert_eq!(storm.replica(new).installed, 0, "it took all these views");
    storm.settle(&[0, 1, new]);
    assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1));
    assert_eq!(storm.replica(0).snapshots, 1);
    // It was told of all these views, in order, and of what was delivered in them.
    let told = sizes(&storm, new);
    assert_eq!(told[told.len() - 7..], [9, 8, 7, 6, 5, 4, 3]);
    let counts = storm.town.processes[0].endpoint.stats(storm.town.processes[0].key).counts;
    let on = counts.iter().find(|count| count.what == "transfer goes on in the next view");
    assert_eq!(on.map(|count| count.count), Some(6), "{counts:?}");
    let diary = &storm.town.processes[new].diary;
    let by_view = storm.town.processes[new].casts_by_view();
    let theirs = storm.town.processes[0].casts_by_view();
    let mut shared = 0;
    for (view, casts) in &by_view {
        if let Some((_, others)) = theirs.iter().find(|(id, _)| id == view) {
            let sorted = |casts: &common::live::Casts| {
                let mut casts = casts.clone();
                casts.sort();
                casts
            };
            let last = view == &by_view.last().unwrap().0;
            assert!(last || sorted(casts) == sorted(others), "what was delivered in {view}");
            shared += usize::from(!casts.is_empty());
        }
    }
    assert!(shared >= 6, "{shared}");
    assert!(diary.answered > 100, "{}", diary.answered);
    for at in [0, 1] {
        let process = &storm.town.processes[at];
        let own = process.endpoint.incarnation().0;
        for seen in &process.diary.seen {
            let Seen::Send(_, answer) = seen else { continue };
            assert!(
                process.diary.seen.contains(&Seen::Cast(own, answer.clone())),
                "an answer to its own cast"
            );
        }
        assert!(process.diary.seen.iter().any(|seen| matches!(seen, Seen::Send(..))));
    }
}

/// Each of these views begins to end before who takes the state in could say in it how much it has.
#[test]
fn a_transfer_goes_on_though_no_view_lasts_until_credit_has_come() {
    let mut storm = Storm::of(16, "", BALLAST);
    let new = storm.join(1);
    storm.until("the first parts", |storm| storm.replica(new).received.len() > BALLAST / 8);
    let before = storm.replica(new).received.len();
    let mut came = Vec::new();
    for gone in (2..16).rev() {
        storm.leave(gone);
        storm.until("the next view", |storm| {
            storm.town.processes[gone - 1].endpoint_view_members() == gone + 1
        });
        came.push(storm.replica(new).received.len());
    }
    assert_eq!(
        storm.replica(new).installed,
        1,
        "of {BALLAST} bytes there were {before}, and view by view {came:?}"
    );
    assert_eq!((storm.replica(new).begun, storm.replica(0).snapshots), (1, 1), "it went on");
    storm.settle(&[0, 1, new]);
}

#[test]
fn of_many_that_come_in_one_after_the_other_the_first_is_not_held_up() {
    let mut storm = Storm::of(2, "", 4 * BALLAST);
    let first = storm.join(1);
    let mut all = vec![0, 1, first];
    while storm.replica(first).installed == 0 {
        let before = storm.replica(first).received.len();
        storm.until("a few parts", |storm| {
            let replica = storm.replica(first);
            replica.installed > 0 || replica.received.len() > before + BALLAST / 2
        });
        if storm.replica(first).installed == 0 {
            let members = all.len();
            all.push(storm.join(1));
            storm.until("the next view", |storm| {
                storm.town.processes[first].endpoint_view_members() > members
            });
        }
    }
    assert!(all.len() >= 5, "views changed meanwhile: {all:?}");
    assert_eq!(storm.replica(first).begun, 1);
    storm.settle(&all);
    for at in &all[2..] {
        assert_eq!(storm.replica(*at).installed, 1, "{at}");
    }
}

#[test]
fn a_donor_that_dies_after_view_changes_is_followed_by_one_that_begins_anew() {
    let mut storm = Storm::of(4, "", 2 * BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    let process = &mut storm.town.processes[3];
    process.endpoint.group(process.key).leave();
    storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 4);
    let before = storm.replica(new).received.len();
    storm.until("more", |storm| storm.replica(new).received.len() > before + BALLAST / 8);
    storm.town.processes[0].stopped = true;
    storm.settle(&[1, 2, new]);
    assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (2, 1));
    // What came before the cut of the second donor is in its state.
    assert_eq!(sizes(&storm, new).last(), Some(&3));
    assert!(!sizes(&storm, new).contains(&5), "{:?}", sizes(&storm, new));
}

#[test]
fn a_hold_that_is_full_holds_the_senders_in_the_next_view_too() {
    let mut storm = Storm::of(3, ",hold_kib_max=8", 2 * BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    let process = &mut storm.town.processes[2];
    process.endpoint.group(process.key).leave();
    storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 3);
    storm.settle(&[0, 1, new]);
    assert_eq!(storm.replica(new).begun, 1);
    let process = &mut storm.town.processes[0];
    let counts = process.endpoint.stats(process.key).counts;
    let held = counts.iter().find(|count| count.what == "casts held for a member without the state");
    assert_eq!(held.map(|count| count.count), Some(2), "{counts:?}");
}

#[test]
fn a_hold_that_is_full_gets_no_fuller_by_view_changes() {
    let mut storm = Storm::of(8, ",hold_kib_max=64", BALLAST);
    let new = storm.join(1);
    storm.replica(new).reluctant = usize::MAX;
    storm.run(Duration::from_millis(30));
    let full = storm.held_kib(new);
    for gone in (2..8).rev() {
        let process = &mut storm.town.processes[gone];
        process.endpoint.group(process.key).leave();
        storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == gone + 1);
        storm.run(Duration::from_millis(10));
        let held = storm.held_kib(new);
        assert!(held < full + 16, "{held} KiB where {full} were full");
    }
    // The donor goes: what is held is in the next one's state, and everybody casts again.
    storm.town.processes[0].stopped = true;
    storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 2);
    storm.replica(new).reluctant = 0;
    storm.settle(&[1, new]);
}

#[test]
fn an_application_that_is_not_ready_for_the_state_holds_the_donor_and_loses_nothing() {
    for ready in [3, usize::MAX] {
        let mut storm = Storm::of(3, "", BALLAST);
        let new = storm.join(1);
        storm.replica(new).reluctant = ready;
        let begun = storm.town.now;
        if ready == usize::MAX {
            storm.run(Duration::from_millis(100));
            assert!(storm.replica(new).received.is_empty());
            // Another view, with the same parts waiting.
            let process = &mut storm.town.processes[2];
            process.endpoint.group(process.key).leave();
            storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 3);
            storm.run(Duration::from_millis(100));
            let process = &mut storm.town.processes[0];
            let dump = process.endpoint.group(process.key).dump().join("\n");
            let given = dump.split("has given ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
            let given: usize = given.parse().unwrap();
            assert!(given > 0 && given <= 32 << 10, "{given} of at most 32 KiB are given");
            assert!(storm.replica(new).received.is_empty());
            // It is not asked all the time.
            let most = storm.town.now.since(begun).as_micros() as usize / 100 + 100;
            let asked = storm.replica(new).asked;
            assert!((100..most).contains(&asked), "{asked} of {most}");
            assert!(storm.replica(new).bytes_asked > 0);
            storm.replica(new).reluctant = 0;
            storm.settle(&[0, 1, new]);
        } else {
            storm.settle(&[0, 1, 2, new]);
        }
        assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1));
    }
}

/// One comes in, and is given the state by two: by the lower, as the place of the second says, and then by the other, who did not
/// hear that the first has got it. The places of both, and of the one that takes it.
fn given_by_two_at_once(parameters: &str) -> (Storm, [usize; 3]) {
    let mut storm = Storm::of(1, parameters, BALLAST);
    let first = storm.join(1);
    storm.nearly_whole(first);
    let second = storm.join(1);
    storm.until("the second's state", |storm| storm.replica(second).installed == 1);
    let new = storm.join(1);
    storm.half_way(new);
    // The first gets the state while the view changes: the second does not hear of it and takes itself for the donor.
    storm.town.processes[0].stopped = true;
    storm.until("the suspicion", |storm| {
        let process = &mut storm.town.processes[first];
        process.endpoint.stats(process.key).counts.iter().any(|count| count.what == "suspicion")
    });
    storm.town.lose = Box::new(move |at, _| at == second);
    storm.run(Duration::from_millis(1));
    storm.replica(first).reluctant = 0;
    storm.until("the first's state", |storm| storm.replica(first).installed == 1);
    let channels = storm.town.processes[second].channels.clone();
    storm.town.lose = Box::new(move |at, received| at == second && !channels.contains(&received.channel));
    storm.until("what the first gives", |storm| storm.replica(new).begun == 2);
    storm.until("what the second gives", |storm| storm.replica(second).snapshots == 1);
    storm.run(Duration::from_millis(1));
    assert_eq!(storm.replica(first).snapshots, 1);
    (storm, [first, second, new])
}

#[test]
fn who_was_given_the_state_by_two_at_once_is_given_it_anew_when_the_lower_dies() {
    let (mut storm, [first, second, new]) = given_by_two_at_once("");
    assert_eq!(storm.replica(new).installed, 0);
    storm.town.processes[first].stopped = true;
    storm.town.lose = Box::new(|_, _| false);
    storm.settle(&[second, new]);
    assert_eq!((storm.replica(second).snapshots, storm.replica(new).begun), (2, 3));
    let process = &mut storm.town.processes[new];
    let counts = process.endpoint.stats(process.key).counts;
    let anew = counts.iter().find(|count| count.what.contains("was never begun here"));
    assert_eq!(anew.map(|count| count.count), Some(1), "{counts:?}");
}

/// What is left out of a state, or comes into it from another one, its application finds out.
#[cfg(feature = "laboratory")]
#[test]
fn who_is_given_the_state_by_two_at_once_takes_it_from_one_and_who_does_not_is_noticed() {
    let whole = |broken: &str| {
        std::panic::catch_unwind(|| {
            let (mut storm, [first, second, new]) = given_by_two_at_once(&format!(",broken={broken}"));
            storm.until("the state", |storm| storm.replica(new).installed == 1);
            assert_eq!(storm.replica(new).begun, 2);
            storm.town.lose = Box::new(|_, _| false);
            storm.settle(&[first, second, new]);
        })
        .is_ok()
    };
    assert!(whole("no"));
    assert!(!whole("takes-from-anybody"));
}

#[test]
fn who_has_all_of_it_and_is_not_ready_holds_up_nobody_whom_the_next_donor_gives_it() {
    let mut storm = Storm::of(2, "", BALLAST);
    let late = storm.join(1);
    storm.nearly_whole(late);
    let new = storm.join(1);
    storm.half_way(new);
    storm.town.processes[0].stopped = true;
    storm.until("the state", |storm| storm.replica(new).installed == 1);
    assert_eq!((storm.replica(late).begun, storm.replica(late).installed), (1, 0));
    // It is not given it again, in this view or the next.
    let another = storm.join(2);
    storm.until("the other's state", |storm| storm.replica(another).installed == 1);
    storm.replica(late).reluctant = 0;
    storm.settle(&[1, late, new, another]);
    assert_eq!((storm.replica(late).begun, storm.replica(1).snapshots), (1, 2));
    let process = &mut storm.town.processes[late];
    let counts = process.endpoint.stats(process.key).counts;
    let unneeded = counts.iter().find(|count| count.what == "part of a state that is not taken in");
    assert!(unneeded.is_none_or(|count| count.count < 20), "{counts:?}");
}

#[test]
fn who_gets_the_state_before_it_hears_of_the_donor_asks_for_no_view() {
    let mut storm = Storm::of(2, "", BALLAST);
    let late = storm.join(1);
    storm.nearly_whole(late);
    let new = storm.join(1);
    storm.until("the view of four", |storm| {
        if storm.town.processes[late].endpoint_view_members() < 4 {
            return false;
        }
        storm.town.lose = Box::new(move |at, _| at == late);
        true
    });
    storm.replica(late).reluctant = 0;
    storm.until("the state", |storm| storm.replica(late).installed == 1);
    storm.run(Duration::from_micros(200));
    storm.town.lose = Box::new(|_, _| false);
    storm.settle(&[0, 1, late, new]);
    assert_eq!(sizes(&storm, 0), [2, 3, 4], "no view but those that somebody came in with");
    assert_eq!(storm.replica(0).snapshots, 2);
}

/// What is held may be much, and the others must hear of this member while its application gets it.
#[test]
fn what_is_held_is_handed_on_in_steps_though_the_view_ends_meanwhile() {
    let config = Config { frame_bytes_max: 512, ..Config::default() };
    let mut storm = Storm::over(Town::of(3, &stack(""), &config), 16 << 10);
    let new = storm.join(1);
    storm.replica(new).reluctant = usize::MAX;
    // Nearly everything held is a piece of a message: wherever the view ends one has begun.
    storm.until("much that is held", |storm| {
        for at in [0, 1] {
            let process = &mut storm.town.processes[at];
            let _ = process.endpoint.group(process.key).cast(&[at as u8; 8 << 10]);
        }
        storm.held_kib(new) > 24 << 10
    });
    storm.replica(new).reluctant = 0;
    storm.until("the state", |storm| storm.replica(new).installed > 0);
    let process = &mut storm.town.processes[2];
    process.endpoint.group(process.key).leave();
    let (mut told, mut most) = (storm.town.processes[new].diary.seen.len(), 0);
    storm.until("the next view", |storm| {
        let process = &mut storm.town.processes[new];
        let now = process.diary.seen.len();
        most = most.max(now - std::mem::replace(&mut told, now));
        process.endpoint_view_members() == 3
    });
    assert!(storm.held_kib(new) > 0, "the next view has begun, and the last is not told to its end");
    assert!(most <= 64 * 16, "{most} messages told between two polls");
    storm.settle(&[0, 1, new]);
    let large = |storm: &Storm, at: usize| {
        let seen = storm.town.processes[at].diary.seen.iter().rev();
        seen.filter(|seen| matches!(seen, Seen::Cast(_, message) if message.len() == 8 << 10)).count()
    };
    let last = sizes(&storm, new);
    assert_eq!(last[last.len() - 2..], [4, 3]);
    assert!(large(&storm, new) > 100, "{} large messages", large(&storm, new));
    assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1));
}
