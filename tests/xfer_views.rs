//! State transfer where views end in every way: beneath other layers, while a flush waits, in partitions and when these come
//! together again. With the shadow on.

mod common;
#[path = "common/storm.rs"]
mod storm;

use std::time::Duration;

use common::live::{Casts, STEP, Seen, Town};
use storm::{BALLAST, Storm, stack};
use wadjet::transport::ChannelId;
use wadjet::{Config, Rank, RankSet};

const REST: &str = "EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:COM";
/// What a process holds so that it takes a while to hand it on, in KiB.
const MUCH_KIB: u64 = 512;

// ---- beneath other layers ----

/// Stacks with layers above XFER that keep a state of their own.
fn beneath() -> [String; 2] {
    ["SAFE:XFER(flight_kib=32):TOTAL", "CHK_FIFO:XFER(flight_kib=32)"].map(|top| format!("{top}:{REST}"))
}

/// The last that came in has all of the state, much of what was held is still to be handed on, and of the view it is in
/// its application has been told.
fn hands_on(storm: &mut Storm, new: usize) {
    storm.nearly_whole(new);
    storm.until("much that is held", |storm| storm.held_kib(new) > MUCH_KIB);
    storm.replica(new).reluctant = 0;
    storm.until("what was held on its way up", |storm| {
        storm.dump(new).contains("hands on what was held") && storm.held_kib(new) < MUCH_KIB
    });
    assert!(storm.held_kib(new) > MUCH_KIB / 2, "most of it is still there");
}

/// The casts that a process delivered in its last view of so many members.
fn casts_in(storm: &Storm, at: usize, members: usize) -> Casts {
    let process = &storm.town.processes[at];
    let views = process.casts_by_view();
    let last = views.into_iter().rfind(|(id, _)| {
        let told = |seen: &Seen| matches!(seen, Seen::View(view, all) if view == id && all.len() == members);
        process.diary.seen.iter().any(told)
    });
    last.expect("there was such a view").1
}

/// Who ran once in a while has few parts a time; when it runs again these are ever more, and each passes the layers above.
#[test]
fn what_has_come_of_a_state_passes_the_layers_above_in_steps() {
    let config = Config { window_frames: 64, ..Config::default() };
    let mut storm =
        Storm::over(Town::of(2, &format!("COUNT:XFER(flight_kib=8192):TOTAL:{REST}"), &config), 6 << 20);
    let new = storm.join(1);
    storm.until("the first of the state", |storm| !storm.replica(new).received.is_empty());
    for _ in 0..80 {
        storm.town.processes[new].stopped = true;
        storm.run(Duration::from_millis(4));
        storm.town.processes[new].stopped = false;
        storm.step();
    }
    storm.settle(&[0, 1, new]);
}

/// Nobody else has the state any more, and the layers above end with the view that it was cut at.
#[test]
fn a_state_that_is_complete_beneath_other_layers_outlives_its_donor() {
    for spec in beneath() {
        let mut storm = Storm::over(Town::of(1, &spec, &Config::default()), BALLAST);
        let new = storm.join(1);
        hands_on(&mut storm, new);
        storm.town.processes[0].stopped = true;
        let process = &mut storm.town.processes[new];
        process.endpoint.group(process.key).suspect(&RankSet::one(Rank(0)));
        storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 1);
        storm.run(Duration::from_millis(5));
        let seen = &storm.town.processes[new].diary.seen;
        let over = |seen: &&Seen| matches!(seen, Seen::StateLost(_) | Seen::Exit(_) | Seen::Problem(_));
        assert_eq!(seen.iter().find(over), None, "{spec}");
        assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1), "{spec}");
        // What the donor has delivered of that view came here, too: all of it, where that is what was promised.
        let (theirs, ours) = (casts_in(&storm, 0, 2), casts_in(&storm, new, 2));
        let of = |casts: &Casts, origin: u64| -> Casts {
            casts.iter().filter(|(from, _)| *from == origin).cloned().collect()
        };
        assert!(theirs.len() > 1000, "{spec}: {}", theirs.len());
        for origin in [1, 2] {
            let (theirs, ours) = (of(&theirs, origin), of(&ours, origin));
            let both = theirs.len().min(ours.len());
            assert!(theirs[..both] == ours[..both], "{spec}: of {origin}");
            assert!(both == theirs.len() || !spec.contains("SAFE"), "{spec}: of {origin}");
        }
        assert!(ours.len() > 1000, "{spec}: {}", ours.len());
        let another = storm.join(2);
        storm.settle(&[new, another]);
    }
}

/// Layers above do not look at sends, which pass them by; of what comes before they are told first.
#[test]
fn what_was_sent_to_who_waits_beneath_other_layers_comes_behind_the_view() {
    for spec in beneath() {
        let mut storm = Storm::over(Town::of(1, &spec, &Config::default()), BALLAST);
        // Nothing comes between the view and the send.
        storm.calm = true;
        let new = storm.join(1);
        storm.half_way(new);
        let process = &mut storm.town.processes[0];
        process.endpoint.group(process.key).send(&RankSet::one(Rank(1)), b"held").unwrap();
        storm.until("the state", |storm| storm.replica(new).installed == 1);
        storm.calm = false;
        storm.settle(&[0, new]);
        let seen = &storm.town.processes[new].diary.seen;
        let view = seen.iter().position(|seen| matches!(seen, Seen::View(_, all) if all.len() == 2));
        let sent = seen.iter().position(|seen| *seen == Seen::Send(1, b"held".to_vec()));
        assert!(view.is_some() && view < sent, "{spec}: view at {view:?}, send at {sent:?}");
    }
}

/// One waits for the state beneath other layers, and its application is not ready for it, until the donor, who alone has it, has
/// waited for long enough and leaves: it wants to so many steps later. It is ready after so many steps, if ever. The steps until the view has ended, and after how
/// many the application had taken all of it in.
fn left_when_ready_after(later: u32, steps: Option<usize>, spec: &str) -> (Storm, usize, Option<usize>) {
    let spec = spec.replace("flight_kib", "stall_ms=5,flight_kib");
    let mut storm = Storm::over(Town::of(1, &spec, &Config::default()), BALLAST);
    let new = storm.join(1);
    storm.nearly_whole(new);
    storm.until("what is held", |storm| storm.held_kib(new) > 64);
    storm.run(STEP * later);
    storm.leave(0);
    let (mut taken, mut whole) = (0, None);
    storm.until("the next view", |storm| {
        if storm.replica(new).installed > 0 {
            whole = whole.or(Some(taken));
        }
        if steps == Some(taken) {
            storm.replica(new).reluctant = 0;
        }
        let over = storm.town.processes[new].endpoint_view_members() == 1;
        taken += usize::from(!over);
        over
    });
    (storm, taken, whole)
}

/// The application has taken the state in, and the view ends before anything of what was held could be handed on.
#[test]
fn a_state_that_is_taken_in_beneath_other_layers_as_the_view_ends_is_not_lost() {
    let spec = &beneath()[0];
    let mut before_the_last = Vec::new();
    // It is asked in every fifth step whether it is ready.
    for (later, early) in (0..5).flat_map(|later| (1..=4).map(move |early| (later, 3 * early))) {
        let (_, never, _) = left_when_ready_after(later, None, spec);
        let steps = never - early;
        let (mut storm, last, whole) = left_when_ready_after(later, Some(steps), spec);
        // Else the view had ended by then, and nobody else has the state.
        if whole.is_some_and(|whole| whole < last) {
            before_the_last.extend(whole.map(|whole| last - whole));
            storm.run(Duration::from_millis(5));
            let seen = &storm.town.processes[1].diary.seen;
            let over = |seen: &&Seen| matches!(seen, Seen::StateLost(_) | Seen::Exit(_) | Seen::Problem(_));
            assert_eq!(seen.iter().find(over), None, "ready after {steps} of {last} steps, {whole:?}");
            assert!(casts_in(&storm, 1, 2).len() > 100, "ready after {steps} of {last} steps");
        }
    }
    assert!(before_the_last.contains(&1), "taken in as the view ended: {before_the_last:?}");
}

#[test]
fn a_state_that_is_complete_beneath_other_layers_is_not_given_again_in_the_next_view() {
    for spec in beneath() {
        let mut storm = Storm::over(Town::of(3, &spec, &Config::default()), BALLAST);
        let new = storm.join(1);
        hands_on(&mut storm, new);
        storm.leave(2);
        storm.settle(&[0, 1, new]);
        assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1), "{spec}");
    }
}

// ---- the word that a view ends ----

/// A member is told of a view, and that it ends, while it hands on what it held of it.
#[test]
fn who_hands_on_what_it_held_is_asked_to_stop_once() {
    let mut while_handing_on = 0;
    for held_kib in [128, 192, 256, 320, 384, 448] {
        let mut storm = Storm::of(3, "", BALLAST);
        let new = storm.join(1);
        storm.nearly_whole(new);
        storm.until("much that is held", |storm| storm.held_kib(new) > held_kib);
        storm.replica(new).reluctant = 0;
        storm.leave(2);
        let blocked = |storm: &Storm| {
            let seen = &storm.town.processes[new].diary.seen;
            let told = seen.iter().rposition(|seen| matches!(seen, Seen::View(_, all) if all.len() == 4));
            told.is_some_and(|told| seen[told..].contains(&Seen::Block))
        };
        storm.until("the next view", |storm| {
            let hands_on = storm.dump(new).contains("hands on what was held");
            while_handing_on += usize::from(hands_on && blocked(storm));
            storm.told(&[0, 1, new])
        });
        storm.settle(&[0, 1, new]);
    }
    assert!(while_handing_on > 0, "the view ended meanwhile now and then");
}

#[test]
fn who_waits_for_the_state_is_asked_to_stop_when_it_is_told_of_the_view_and_holds_up_nobody() {
    let spec = stack("").replace("MBRSHIP", "MBRSHIP(block=yes)");
    let mut storm = Storm::over(Town::of(3, &spec, &Config::default()), BALLAST);
    // Everybody but whom a test leaves out says so when it is asked to stop casting.
    let mut answered = [0; 4];
    let blocks = |storm: &Storm, at: usize| {
        storm.town.processes[at].diary.seen.iter().filter(|seen| **seen == Seen::Block).count()
    };
    let mut answer = |storm: &mut Storm, whom: &[usize]| {
        for at in whom {
            let asked = blocks(storm, *at);
            if std::mem::replace(&mut answered[*at], asked) < asked {
                let process = &mut storm.town.processes[*at];
                process.endpoint.group(process.key).block_ok();
            }
        }
    };
    let new = storm.join(1);
    storm.until("the view of four", |storm| {
        answer(storm, &[0, 1, 2, new]);
        storm.town.processes[new].endpoint_view_members() == 4
    });
    storm.nearly_whole(new);
    let asked_alone = blocks(&storm, new);
    assert!(asked_alone <= 1, "in the view that it was alone in");
    // The others are kept waiting, for less than they would wait.
    let asked = blocks(&storm, 1);
    storm.leave(2);
    storm.until("the flush", |storm| blocks(storm, 1) > asked);
    storm.run(Duration::from_millis(1));
    assert_eq!(blocks(&storm, new), asked_alone, "it has not been told of the view that ends");
    storm.replica(new).reluctant = 0;
    storm.until("the word that the view ends", |storm| blocks(storm, new) > asked_alone);
    let seen = &storm.town.processes[new].diary.seen;
    let told = seen.iter().rposition(|seen| matches!(seen, Seen::View(..))).unwrap();
    assert!(matches!(&seen[told..], [Seen::View(_, all), Seen::Block, ..] if all.len() == 4));
    // It was not waited for: what it casts goes out in the view that it is in, whichever it has been told of.
    storm.until("the next view", |storm| {
        answer(storm, &[0, 1]);
        storm.told(&[0, 1, new])
    });
    storm.settle(&[0, 1, new]);
    assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1));
}

// ---- partitions ----

/// The views that a process was told of, from the first of so many members on: their members' incarnations. Between two
/// of them it was told once who goes on together: those of the first that are in the second, too.
fn views_told(storm: &Storm, at: usize, first: usize) -> Vec<Vec<u64>> {
    let mut views: Vec<Vec<u64>> = Vec::new();
    let mut together: Option<Vec<u64>> = None;
    for seen in &storm.town.processes[at].diary.seen {
        match seen {
            Seen::View(_, members) if !views.is_empty() || members.len() == first => {
                if let Some(before) = views.last() {
                    let both = before.iter().filter(|member| members.contains(member)).copied().collect();
                    assert_eq!(together.take(), Some(both), "{at}: {before:?} to {members:?}");
                }
                views.push(members.clone());
            }
            Seen::Transitional(ranks) if !views.is_empty() => {
                let members = views.last().unwrap();
                let named = ranks.iter().map(|rank| members[usize::from(*rank)]).collect();
                assert_eq!(together.replace(named), None, "{at} is told once who goes on together");
            }
            _ => {}
        }
    }
    assert_eq!(together, None);
    views
}

fn replicated() -> String {
    let layers = wadjet::layers::REPLICATED_STACK_WITH_INTEGRITY;
    layers.replace("XFER", "XFER(flight_kib=32)")
}

/// Whoever is named (by place) hears nobody else, and the other way round, until all are in two views.
fn part(storm: &mut Storm, side: &[usize], others: &[usize]) {
    storm.town.apart = side.iter().map(|at| *at as u64 + 1).collect();
    for (whom, what) in [(side, "one side"), (others, "the other side")] {
        storm.until(what, |storm| {
            whom.iter().all(|at| storm.town.processes[*at].endpoint_view_members() == whom.len())
        });
    }
}

fn meet(storm: &mut Storm, all: &[usize]) {
    storm.town.apart.clear();
    storm.until("one view", |storm| {
        all.iter().all(|at| storm.town.processes[*at].endpoint_view_members() == all.len())
    });
}

/// Donor and taker are on the side that lets the other one in. What the taker is told is every view, in order.
#[test]
fn a_transfer_goes_on_through_a_partition_and_when_it_is_over() {
    for spec in [stack(""), replicated()] {
        let mut storm = Storm::over(Town::of(5, &spec, &Config::default()), 2 * BALLAST);
        let new = storm.join(1);
        storm.half_way(new);
        // A part in every so many times: it is under way all the time.
        storm.replica(new).reluctant = usize::MAX;
        part(&mut storm, &[3, 4], &[0, 1, 2, new]);
        meet(&mut storm, &[0, 1, 2, 3, 4, new]);
        assert_eq!(
            (storm.replica(new).begun, storm.replica(new).installed),
            (1, 0),
            "it took all these views"
        );
        storm.replica(new).reluctant = 0;
        storm.settle(&[0, 1, 2, 3, 4, new]);
        assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 1));
        let on = storm.counted(0, "transfer goes on in the next view");
        assert!(on >= 2, "parted, and let in: {on}");
        let told = views_told(&storm, new, 6);
        assert_eq!(told.first().map(Vec::len), Some(6), "{told:?}");
        assert!(told[1..].contains(&vec![1, 2, 3, 6]), "{told:?}");
        assert_eq!(told, views_told(&storm, 0, 6), "as those who had the state all the time");
        // The other side's is replaced.
        for at in [3, 4] {
            assert_eq!(storm.replica(at).installed, 1, "{at}");
            let told = views_told(&storm, at, 6);
            assert!(told.contains(&vec![4, 5]), "{told:?}");
        }
        // What was delivered in a view that was shared to its end is the same.
        for members in [4, 6] {
            let mut casts = [0, 1, new].map(|at| casts_in(&storm, at, members));
            if !spec.contains("TOTAL") {
                casts.iter_mut().for_each(|casts| casts.sort());
            }
            let [a, b, c] = casts;
            assert!(a == b && a == c, "{spec}: in views of {members}");
        }
    }
}

/// A view has numbers for a few casts only, and ends before it is told in it what was taken in of the parts before.
#[test]
fn a_transfer_ends_though_no_view_lasts_for_a_round_of_credit() {
    let few = Config { frame_number_limit: 10, pack: false, ..Config::default() };
    let mut storm = Storm::over(Town::of(1, &stack(""), &few), BALLAST);
    let new = storm.join(1);
    storm.until("all of the state", |storm| storm.replica(new).installed == 1);
    let on = storm.counted(0, "transfer goes on in the next view");
    assert!(on >= 4, "views that the transfer went through: {on}");
    storm.settle(&[0, new]);
    assert_eq!(storm.replica(new).begun, 1);
}

/// Donor and taker are on the side that is let in: neither state counts there any more.
#[test]
fn a_transfer_on_the_side_that_is_let_in_gives_way_to_the_other_sides_state() {
    for spec in [stack(""), replicated()] {
        let mut storm = Storm::over(Town::of(5, &spec, &Config::default()), 2 * BALLAST);
        let new = storm.join(1);
        storm.half_way(new);
        storm.replica(new).reluctant = usize::MAX;
        part(&mut storm, &[0, new], &[1, 2, 3, 4]);
        assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (1, 0));
        meet(&mut storm, &[0, 1, 2, 3, 4, new]);
        storm.replica(new).reluctant = 0;
        storm.settle(&[0, 1, 2, 3, 4, new]);
        assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (2, 1), "{spec}");
        assert_eq!((storm.replica(0).installed, storm.replica(0).snapshots), (1, 1), "{spec}");
    }
}

/// The side of who is let in has handed on a part of what it held.
#[test]
fn what_is_held_of_a_view_is_handed_on_before_its_partition_is_let_in() {
    for spec in [stack(""), replicated()] {
        let mut storm = Storm::over(Town::of(5, &spec, &Config::default()), BALLAST);
        let new = storm.join(1);
        storm.nearly_whole(new);
        part(&mut storm, &[0, new], &[1, 2, 3, 4]);
        storm.town.apart.clear();
        // It gets the state when the other side is about to let it in.
        storm.until("the flush", |storm| {
            let seen = &storm.town.processes[0].diary.seen;
            let view = seen.iter().rposition(|seen| matches!(seen, Seen::View(..))).unwrap();
            seen[view..].contains(&Seen::Block)
        });
        storm.replica(new).reluctant = 0;
        storm.settle(&[0, 1, 2, 3, 4, new]);
        let told = views_told(&storm, new, 6);
        assert!(told.contains(&vec![1, 6]), "{told:?}");
        let installed = storm.replica(new).installed;
        assert_eq!(installed, 2, "its own side's, and the other's");
        assert!(casts_in(&storm, new, 2) == casts_in(&storm, 0, 2) || !spec.contains("TOTAL"));
    }
}

/// The taker's side has lost its donor, and goes on with another one; then the donor's side is let in.
#[test]
fn a_taker_that_is_parted_from_its_donor_gets_the_state_of_another_one() {
    let mut storm = Storm::over(Town::of(5, &replicated(), &Config::default()), 2 * BALLAST);
    let new = storm.join(1);
    storm.half_way(new);
    storm.replica(new).reluctant = usize::MAX;
    part(&mut storm, &[0, 4], &[1, 2, 3, new]);
    storm.replica(new).reluctant = 0;
    storm.until("a part of another's", |storm| storm.replica(new).begun == 2);
    meet(&mut storm, &[0, 1, 2, 3, 4, new]);
    storm.settle(&[0, 1, 2, 3, 4, new]);
    assert_eq!((storm.replica(new).begun, storm.replica(new).installed), (2, 1));
    assert_eq!((storm.replica(0).installed, storm.replica(4).installed), (1, 1), "the donor is given it now");
    // Of the view that it came in with it was not told: its state is of a later one.
    assert!(!views_told(&storm, new, 4).is_empty());
}

// ---- the state of who is let in ----

/// Whether a process has left for want of a state; who has was told that it is lost.
fn has_left(storm: &Storm, at: usize) -> bool {
    let seen = &storm.town.processes[at].diary.seen;
    let lost = seen.iter().any(|seen| matches!(seen, Seen::StateLost(false)));
    let left = matches!(seen.last(), Some(Seen::Exit(why)) if why.contains("could not take over"));
    assert_eq!(lost, left, "{at}: {:?}", seen.last());
    left
}

/// How many of what a process has cast are in the state of a process.
fn casts_of(storm: &mut Storm, origin: u64, at: usize) -> u64 {
    storm.replica(at).state.get(&origin).map_or(0, |(count, _)| *count)
}

/// One of two that were parted lets a third one in and dies, which is waiting for its state, so many steps after all may hear
/// each other again.
fn the_host_dies_as_the_other_side_comes_in(steps: u32) -> (Storm, usize) {
    let mut storm = Storm::of(2, "", 2 * BALLAST);
    part(&mut storm, &[1], &[0]);
    let new = storm.join(1);
    storm.half_way(new);
    storm.replica(new).reluctant = usize::MAX;
    storm.town.apart.clear();
    storm.run(STEP * steps);
    storm.town.processes[0].stopped = true;
    let process = &mut storm.town.processes[new];
    process.endpoint.group(process.key).suspect(&RankSet::one(Rank(0)));
    storm.replica(new).reluctant = 0;
    (storm, new)
}

/// The group's only whole state that is left is that of the side that is let in.
#[test]
fn a_whole_state_is_not_lost_with_the_state_of_those_that_let_its_side_in() {
    let mut given = 0;
    for steps in (400..620).step_by(20) {
        let (mut storm, new) = the_host_dies_as_the_other_side_comes_in(steps);
        let before = casts_of(&mut storm, 2, 1);
        storm.run(Duration::from_millis(300));
        if storm.replica(1).begun > 0 {
            // The one that died has given it a part of its state by then, or all of it.
            continue;
        }
        assert!(!has_left(&storm, 1), "after {steps} steps");
        if has_left(&storm, new) {
            // It was alone by then.
            continue;
        }
        storm.settle(&[1, new]);
        assert!(casts_of(&mut storm, 2, 1) > before, "after {steps} steps");
        assert_eq!((storm.replica(1).snapshots, storm.replica(new).installed), (1, 1), "after {steps} steps");
        given += 1;
    }
    assert!(given >= 3, "{given} times");
}

/// When those who let another one in die.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Before they have given it anything.
    AtOnce,
    /// When parts have come to it, and its application is not ready for the first.
    OnOffer,
    /// When it has taken a part in.
    HalfWay,
}

/// A process that was parted from two others, or has met nobody yet, is let in by these, who die then. Its place.
fn let_in_by_those_who_die(spec: &str, parted: bool, when: When) -> (Storm, usize) {
    let mut storm = Storm::over(Town::of(2 + u64::from(parted), spec, &Config::default()), BALLAST);
    if parted {
        part(&mut storm, &[2], &[0, 1]);
    } else {
        storm.join(1);
    }
    let channels = storm.town.processes[2].channels.clone();
    storm.town.lose = Box::new(move |at, received| {
        let is_known = channels.contains(&received.channel) || received.channel == ChannelId::OUTSIDE;
        at == 2 && when == When::AtOnce && !is_known
    });
    storm.town.apart.clear();
    storm.until("the view of all", |storm| storm.town.processes[2].endpoint_view_members() == 3);
    match when {
        When::AtOnce => {}
        When::OnOffer => {
            storm.replica(2).reluctant = usize::MAX;
            storm.until("the offer", |storm| storm.replica(2).asked > 0);
        }
        When::HalfWay => storm.half_way(2),
    }
    (0..2).for_each(|at| storm.town.processes[at].stopped = true);
    storm.town.lose = Box::new(|_, _| false);
    storm.run(Duration::from_millis(300));
    (storm, 2)
}

#[test]
fn who_is_let_in_by_those_who_die_before_they_give_anything_goes_on_with_what_it_had() {
    for (spec, when) in [stack(""), replicated()]
        .into_iter()
        .flat_map(|spec| [When::AtOnce, When::OnOffer].map(|when| (spec.clone(), when)))
    {
        let (mut storm, at) = let_in_by_those_who_die(&spec, true, when);
        assert!(!has_left(&storm, at), "{spec}");
        assert_eq!(storm.replica(at).begun, 0, "{spec}: it has its own");
        assert!(casts_of(&mut storm, 1, at) > 0, "{spec}: what was shared is there");
        // What was cast since it came in is not in it.
        let told =
            storm.town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::StateLost(true)));
        assert_eq!(told.count(), 1, "{spec}");
        let new = storm.join(3);
        storm.settle(&[at, new]);
        assert_eq!((storm.replica(at).installed, storm.replica(new).installed), (0, 1), "{spec}");
    }
}

/// What each of them has cast since they came in is in no state: the others are given that of the first.
#[test]
fn all_who_wait_are_told_that_the_state_is_lost_and_not_only_the_one_whose_own_counts() {
    for spec in [stack(""), replicated()] {
        let mut storm = Storm::over(Town::of(5, &spec, &Config::default()), BALLAST);
        part(&mut storm, &[3, 4], &[0, 1, 2]);
        let channels: Vec<_> = [3, 4].map(|at: usize| storm.town.processes[at].channels.clone()).into();
        storm.town.lose = Box::new(move |at, received| {
            let is_known = |channels: &[ChannelId]| channels.contains(&received.channel);
            at >= 3 && received.channel != ChannelId::OUTSIDE && !is_known(&channels[at - 3])
        });
        storm.town.apart.clear();
        storm.until("the view of all", |storm| {
            [3, 4].iter().all(|at| storm.town.processes[*at].endpoint_view_members() == 5)
        });
        (0..3).for_each(|at| storm.town.processes[at].stopped = true);
        storm.town.lose = Box::new(|_, _| false);
        // Of the view of both they were told before they were let in, too.
        storm.run(Duration::from_millis(300));
        storm.settle(&[3, 4]);
        let told = [3, 4].map(|at: usize| {
            let seen = storm.town.processes[at].diary.seen.iter();
            seen.filter(|seen| matches!(seen, Seen::StateLost(true))).count()
        });
        assert_eq!(told, [1, 1], "{spec}");
        assert_eq!(storm.replica(3).begun + storm.replica(4).begun, 1, "{spec}: one has its own");
        let new = storm.join(4);
        storm.calm = false;
        storm.settle(&[3, 4, new]);
        assert!(!storm.town.processes[new].diary.seen.iter().any(|seen| matches!(seen, Seen::StateLost(_))));
    }
}

/// What a process starts with is not the group's, and a part of another's state is in the place of what it had.
#[test]
fn who_has_met_nobody_before_or_has_taken_a_part_in_leaves_when_the_state_is_lost() {
    for spec in [stack(""), replicated()] {
        for parted in [false, true] {
            let when = if parted { When::HalfWay } else { When::AtOnce };
            let (storm, at) = let_in_by_those_who_die(&spec, parted, when);
            assert!(has_left(&storm, at), "{spec}, parted: {parted}");
        }
    }
}

#[cfg(feature = "laboratory")]
#[test]
fn an_own_state_that_counts_for_nothing_or_in_part_is_noticed() {
    let leaves = |broken: &str, when| {
        has_left(&let_in_by_those_who_die(&stack(&format!(",broken={broken}")), true, when).0, 2)
    };
    assert!(leaves("own-is-void", When::AtOnce));
    assert!(leaves("own-goes-with-the-offer", When::OnOffer));
    assert!(!leaves("own-is-kept-in-part", When::HalfWay));
}

/// The donor has taken its snapshot, and nothing of it was given yet when the view ended in which it was taken. Whether the state
/// and what was held of both views are together what the donor has.
fn has_all_when_the_view_ends_before_the_first_part(parameters: &str) -> bool {
    let mut storm = Storm::of(2, parameters, BALLAST);
    storm.replica(0).kept_back.set(true);
    let new = storm.join(1);
    storm.until("the snapshot", |storm| storm.replica(0).snapshots == 1);
    storm.run(Duration::from_millis(5));
    storm.leave(1);
    storm.until("the next view", |storm| storm.town.processes[new].endpoint_view_members() == 2);
    assert_eq!((storm.replica(new).begun, storm.town.exit(1)), (0, Some("left the group")));
    storm.replica(0).kept_back.set(false);
    storm.until("the state", |storm| storm.replica(new).installed == 1);
    storm.calm = true;
    storm.run(Duration::from_millis(50));
    assert_eq!((storm.replica(0).snapshots, storm.replica(new).begun), (1, 1));
    storm.replica(0).state.clone() == storm.replica(new).state
}

#[test]
fn what_was_held_of_a_view_that_ended_before_the_first_part_follows_the_state() {
    assert!(has_all_when_the_view_ends_before_the_first_part(""));
    #[cfg(feature = "laboratory")]
    assert!(!has_all_when_the_view_ends_before_the_first_part(",broken=begins-at-this-view"));
}

/// Three of whose casts a fourth may hold back 64 KiB, which does not get ready to take the state in any more.
fn with_one_that_is_not_ready(parameters: &str) -> (Storm, usize) {
    let spec = stack(&format!(",hold_kib_max=64{parameters}"));
    let mut storm = Storm::over(Town::of(3, &spec, &Config::default()), BALLAST);
    let new = storm.join(1);
    storm.until("some of the state", |storm| storm.replica(new).received.len() > BALLAST / 3);
    storm.replica(new).reluctant = usize::MAX;
    storm.until("casts held back", |storm| storm.town.counted(0, HELD) > 0);
    (storm, new)
}

const HELD: &str = "casts held for a member without the state";

fn problems(storm: &Storm, at: usize) -> Vec<&str> {
    let problem = |seen: &'_ Seen| matches!(seen, Seen::Problem(_));
    let told = storm.town.processes[at].diary.seen.iter().filter(|seen| problem(seen));
    told.filter_map(|seen| if let Seen::Problem(what) = seen { Some(what.as_str()) } else { None }).collect()
}

#[test]
fn who_keeps_all_from_casting_and_is_never_ready_for_the_state_is_named_and_leaves() {
    let (mut storm, new) = with_one_that_is_not_ready(",stall_ms=100");
    let begun = storm.town.now;
    storm.until("a view without it", |storm| storm.town.processes[0].endpoint_view_members() == 3);
    assert!(storm.town.now.since(begun) > Duration::from_millis(90), "it has its time");
    storm.settle(&[0, 1, 2]);
    for at in 0..3 {
        let [told] = problems(&storm, at)[..] else { panic!("{:?}", problems(&storm, at)) };
        assert!(told.starts_with("nobody has cast for 10 ms: p4 waits for the state"), "{told}");
    }
    let own = problems(&storm, new);
    assert!(own.iter().any(|told| told.contains("the application was not ready for 100 ms")), "{own:?}");
    assert!(storm.town.exit(new).is_some_and(|why| why.contains("could not take over the group's state")));
}

#[test]
fn a_donor_that_is_never_ready_to_give_while_all_are_kept_from_casting_lets_another_do_so() {
    let spec = stack(",hold_kib_max=64,stall_ms=100");
    let mut storm = Storm::over(Town::of(3, &spec, &Config::default()), BALLAST);
    storm.replica(0).ready = Some(BALLAST / 3);
    let new = storm.join(1);
    storm.until("casts held back", |storm| storm.town.counted(0, HELD) > 0);
    storm.settle(&[0, 1, 2, new]);
    let told = problems(&storm, 0);
    assert!(told.iter().any(|told| told.contains("it was not ready for 100 ms")), "{told:?}");
    assert_eq!(storm.replica(1).snapshots, 1);
}

#[test]
fn who_takes_its_time_and_goes_on_taking_in_is_waited_for() {
    let (mut storm, new) = with_one_that_is_not_ready(",stall_ms=100");
    // A part every 80 ms: it is full for much longer than it may stand still.
    storm.replica(new).reluctant = 800;
    storm.run(Duration::from_millis(400));
    storm.replica(new).reluctant = 0;
    storm.settle(&[0, 1, 2, new]);
}

#[test]
fn who_alone_has_the_state_leaves_when_another_has_it() {
    let mut storm = Storm::of(1, "", BALLAST);
    let new = storm.join(1);
    storm.until("the view of both", |storm| storm.town.processes[0].endpoint_view_members() == 2);
    storm.leave(0);
    storm.until("its exit", |storm| storm.town.exit(0).is_some());
    assert_eq!(storm.town.exit(0), Some("left the group"));
    storm.run(Duration::from_millis(100));
    assert_eq!((storm.replica(new).installed, storm.town.exit(new)), (1, None));
    assert!(!storm.town.processes[new].diary.seen.iter().any(|seen| matches!(seen, Seen::StateLost(_))));
}

#[test]
fn who_alone_has_the_state_does_not_wait_for_ever_for_who_does_not_take_it() {
    let mut storm = Storm::of(1, ",stall_ms=50", BALLAST);
    let new = storm.join(1);
    storm.replica(new).reluctant = usize::MAX;
    storm.until("the view of both", |storm| storm.town.processes[0].endpoint_view_members() == 2);
    storm.leave(0);
    storm.run(Duration::from_millis(40));
    assert_eq!(storm.town.exit(0), None);
    storm.until("its exit", |storm| storm.town.exit(0).is_some());
}

// ---- applications that take their time ----

/// Two milliseconds of work, in steps.
const TWO_MILLISECONDS: u32 = 100;

fn nobody_was_suspected(storm: &Storm, all: &[usize]) {
    for at in all {
        assert_eq!(storm.town.suspicions(*at), [], "at {at}");
        assert_eq!(storm.town.exit(*at), None);
    }
}

/// All that has come in a moment, taken in at once, would keep it from being heard for a tenth of a second and more.
#[test]
fn who_takes_milliseconds_for_every_part_of_the_state_is_not_excluded() {
    let spec = stack("").replace("flight_kib=32", "flight_kib=4096");
    let mut storm = Storm::over(Town::of(2, &spec, &Config::default()), BALLAST);
    let new = storm.join(1);
    storm.town.processes[new].part_work = TWO_MILLISECONDS;
    storm.calm = true;
    storm.until("the state", |storm| storm.replica(new).installed == 1);
    assert!(storm.replica(new).parts > 100);
    nobody_was_suspected(&storm, &[0, 1, new]);
    storm.calm = false;
    storm.settle(&[0, 1, new]);
}

#[test]
fn who_takes_milliseconds_for_every_cast_that_it_held_back_is_not_excluded() {
    let mut storm = Storm::of(2, "", BALLAST);
    let new = storm.join(1);
    storm.nearly_whole(new);
    storm.calm = true;
    storm.run(Duration::from_millis(5));
    storm.town.processes[new].work = TWO_MILLISECONDS;
    storm.replica(new).reluctant = 0;
    let before = storm.town.processes[new].diary.ids[0].len();
    storm.until("some hundred casts", |storm| storm.town.processes[new].diary.ids[0].len() > before + 300);
    nobody_was_suspected(&storm, &[0, 1, new]);
    storm.town.processes[new].work = 0;
    storm.calm = false;
    storm.settle(&[0, 1, new]);
}

/// Nobody is held: the joiner alone waits.
#[test]
fn a_donor_that_is_not_ready_to_give_for_long_lets_another_do_so_if_there_is_one() {
    let spec = stack(",stall_ms=100");
    let mut storm = Storm::over(Town::of(2, &spec, &Config::default()), BALLAST);
    storm.replica(0).ready = Some(BALLAST / 3);
    let new = storm.join(1);
    storm.settle(&[0, 1, new]);
    assert_eq!(storm.replica(1).snapshots, 1);
    let told = problems(&storm, 0);
    assert!(told.iter().any(|told| told.contains("it was not ready for 100 ms (stall_ms)")), "{told:?}");
}

#[test]
fn who_waits_in_vain_for_the_state_is_told_once_who_gives_it() {
    let spec = stack(",stall_ms=100");
    let mut storm = Storm::over(Town::of(1, &spec, &Config::default()), BALLAST);
    storm.replica(0).ready = Some(BALLAST / 3);
    let new = storm.join(1);
    storm.run(Duration::from_millis(500));
    let [told] = problems(&storm, new)[..] else { panic!("{:?}", problems(&storm, new)) };
    assert!(told.starts_with("the group's state does not come: nothing for 1"), "{told}");
    assert!(told.contains("bytes of it from p1; this process goes on waiting"), "{told}");
    assert_eq!(problems(&storm, 0), [] as [&str; 0], "there is nobody else who has it");
}
