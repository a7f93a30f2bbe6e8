//! What is said late of a view change that was given up: it moves nobody who has taken part in a later one.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{Seen, Town, group, member};
use wadjet::transport::{ChannelId, Outside, Received, Transport};
use wadjet::wire::full::{PREFIX_BYTES, Prefix};
use wadjet::{Config, Rank, RankSet, ViewId};

const SECOND: Duration = Duration::from_secs(1);

/// Nobody is found out by its silence: who is taken for failed is so by its application's word.
fn spec(membership: &str) -> String {
    wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY
        .replace("MBRSHIP", &format!("MBRSHIP(flush_ms=1000,merge_ms=1000{membership})"))
        .replace("SUSPECT", "SUSPECT(least_ms=2000,busy_ms=2000,most_ms=2000,first_ms=2000)")
}

/// Who sent it, if it says so.
fn origin(received: &Received) -> Option<u64> {
    Prefix::decode(received.bytes()).ok().map(|(prefix, ..)| prefix.identification.origin.0)
}

/// Letters that let somebody in, and those that ask to be let in, by the first byte of what they say.
const VIEW: u8 = 3;
const MERGE: u8 = 1;

fn body(letter: &[u8]) -> &[u8] {
    letter.get(PREFIX_BYTES + 10..).unwrap_or_default()
}

fn accuses(town: &mut Town, at: usize, ranks: &[u16]) {
    let process = &mut town.processes[at];
    let ranks: RankSet = ranks.iter().map(|rank| Rank(*rank)).collect();
    process.endpoint.group(process.key).suspect(&ranks);
}

fn dump(town: &mut Town, at: usize) -> String {
    let process = &mut town.processes[at];
    process.endpoint.group(process.key).dump().join("\n")
}

fn endpoint_view(town: &mut Town, at: usize) -> ViewId {
    let process = &mut town.processes[at];
    process.endpoint.group(process.key).endpoint_view().view().id
}

fn until(town: &mut Town, what: &str, done: impl FnMut(&mut Town) -> bool) {
    if !town.until(SECOND, done) {
        let all: Vec<String> = (0..town.processes.len()).map(|at| dump(town, at)).collect();
        panic!("{what} takes too long\n{}", all.join("\n"));
    }
}

// ---- the view of a coordinator that was taken for failed ----

/// The first of four has led the others on without the last, and they, who have confirmed that, have not heard which view it is.
/// Then the second leads them on without the first, and the third has confirmed that, too; and before it hears of the view that
/// the second is in by then, what the first wrote to it arrives. The members of the view that the third is told of next.
fn where_the_third_goes(spec: &str) -> Vec<u64> {
    let mut town = Town::of(4, spec, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[3].stopped = true;
    accuses(&mut town, 0, &[3]);
    until(&mut town, "the first one's cut", |town| {
        [1, 2].iter().all(|at| dump(town, *at).contains("of member 0 (the cut is known)"))
    });
    // What they have said of it is under way; nothing that the first says from now on arrives.
    town.apart = vec![1];
    until(&mut town, "the first one's view", |town| town.processes[0].endpoint_view_members() == 3);
    town.apart.clear();
    let known: Vec<Vec<ChannelId>> = [1, 2].map(|at: usize| town.processes[at].channels.clone()).into();
    town.lose =
        Box::new(move |at, received| matches!(at, 1 | 2) && !known[at - 1].contains(&received.channel));
    let letters = |town: &Town| -> Vec<Vec<u8>> {
        let letters = town.processes[0].diary.letters.iter();
        letters.filter(|letter| body(letter).first() == Some(&VIEW)).cloned().collect()
    };
    until(&mut town, "the first one's word", |town| !letters(town).is_empty());
    let letter = letters(&town).remove(0);
    accuses(&mut town, 1, &[0]);
    until(&mut town, "the second one's cut", |town| dump(town, 2).contains("of member 1 (the cut is known)"));
    town.lose = Box::new(|at, _| at == 2);
    until(&mut town, "the second one's view", |town| town.processes[1].endpoint_view_members() == 2);
    town.lose = Box::new(move |at, received| at == 2 && origin(received) != Some(1));
    town.hub.transport().send_outside(group(), &Outside::To(member(3).address), &letter);
    town.run(Duration::from_millis(2));
    town.lose = Box::new(|_, _| false);
    let told = |town: &Town| {
        let views = town.processes[2].diary.seen.iter().filter_map(|seen| match seen {
            Seen::View(_, members) => Some(members.clone()),
            _ => None,
        });
        views.skip_while(|members| members.len() != 4).nth(1)
    };
    until(&mut town, "the third one's view", |town| told(town).is_some());
    told(&town).expect("it was told of one")
}

#[test]
fn who_has_confirmed_a_later_view_change_does_not_go_where_the_one_before_led() {
    assert_eq!(where_the_third_goes(&spec("")), [2, 3]);
    #[cfg(feature = "laboratory")]
    assert_eq!(where_the_third_goes(&spec(",broken=installs-the-given-up")), [1, 2, 3]);
}

// ---- the view that somebody was let into, and had given up ----

/// Two ask three others to be let in. When that is settled and not done yet, the second of the two goes on alone, and asks them
/// itself; and when both have been let in, as the first asked, it asks once more. Whether it comes into that view: the first is
/// told that it goes there together with it, and it would come from a view of its own.
fn comes_with_who_asked_before(spec: &str) -> bool {
    let mut town = Town::of(5, spec, &Config::default());
    town.apart = vec![4, 5];
    accuses(&mut town, 0, &[3, 4]);
    accuses(&mut town, 3, &[0, 1, 2]);
    until(&mut town, "the parting", |town| town.together(&[0, 1, 2]) && town.together(&[3, 4]));
    // They have more views than the two: theirs may follow.
    for _ in 0..2 {
        let new = town.join(&[1]);
        town.meet(&[0, 1, 2, new], SECOND);
        let process = &mut town.processes[new];
        process.endpoint.group(process.key).leave();
        town.meet(&[0, 1, 2], SECOND);
    }
    town.apart.clear();
    let asks_in_vain = Rc::new(Cell::new(true));
    let in_vain = Rc::clone(&asks_in_vain);
    town.lose = Box::new(move |at, received| {
        let letter = received.channel == ChannelId::OUTSIDE && origin(received) == Some(5);
        let body = body(received.bytes());
        let with_token = body.get(17..25).is_some_and(|token| token != [0; 8]);
        let asks = body.first() == Some(&MERGE) && with_token;
        letter && (at != 0 || asks && in_vain.get())
    });
    until(&mut town, "the request of both", |town| dump(town, 3).contains("to merge with p1"));
    town.run(Duration::from_millis(10));
    accuses(&mut town, 4, &[0]);
    until(&mut town, "its own request", |town| {
        town.processes[4].endpoint_view_members() == 1 && dump(town, 4).contains("to merge with p1")
    });
    assert_eq!(town.processes[0].endpoint_view_members(), 3, "they wait for more that want in");
    until(&mut town, "the view of five", |town| town.processes[0].endpoint_view_members() == 5);
    assert_eq!(town.processes[4].endpoint_view_members(), 1);
    let view = endpoint_view(&mut town, 0);
    asks_in_vain.set(false);
    let comes = town.until(Duration::from_millis(20), |town| endpoint_view(town, 4) == view);
    assert!(
        town.processes[3].diary.seen.iter().any(|seen| matches!(seen, Seen::View(id, _) if *id == view)),
        "who asked for it is there"
    );
    town.lose = Box::new(|_, _| false);
    if !comes {
        town.meet(&[0, 1, 2, 3, 4], SECOND);
    }
    comes
}

#[test]
fn who_has_gone_on_from_the_view_that_was_let_in_does_not_come_with_it() {
    assert!(!comes_with_who_asked_before(&spec(",gather_us=200000")));
    #[cfg(feature = "laboratory")]
    assert!(comes_with_who_asked_before(&spec(",gather_us=200000,broken=tells-whoever-asks")));
}
