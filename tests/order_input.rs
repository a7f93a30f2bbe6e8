//! Turns, requests for them and orders that are forged, stale, doubled or out of range: dropped, counted, and no harm.

mod common;

use common::World;
use wadjet::wire::Traffic;
use wadjet::wire::full::{NO_CONTROL, PREFIX_BYTES, Prefix};
use wadjet::{Config, Incarnation, Shadow};

/// No checksum here: what is forged well enough reaches the layers.
const TOTAL: &str = "TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:COM";
const SEQUENCER: &str = "SEQUENCER:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:COM";
/// Who is lied to, and who asks for a turn or is ordered; member 2 stays silent.
const VICTIM: usize = 1;
const SENDER: usize = 3;

/// A world in which member 0 has just cast something without content, which is lost on its way to the victim.
fn lost_blank(spec: &str) -> (World, Vec<u8>) {
    let mut world = World::new(4, spec, &Config { shadow: Shadow::Panic, ..Config::default() });
    world.record = true;
    world.lose = Box::new(|to, received| {
        let full_cast = |prefix: &Prefix| prefix.traffic == Traffic::Cast && prefix.control == NO_CONTROL;
        let first = Prefix::decode(received.bytes())
            .is_ok_and(|(prefix, ..)| full_cast(&prefix) && prefix.identification.origin == Incarnation(100));
        to == VICTIM && first
    });
    world.cast(SENDER, b"first");
    let mut blank = None;
    for _ in 0..1000 {
        world.step();
        blank = world.nodes[0].sent.iter().find(|bytes| is_blank(bytes)).cloned();
        if blank.is_some() {
            break;
        }
    }
    (world, blank.expect("member 0 invites, or orders"))
}

fn is_blank(bytes: &[u8]) -> bool {
    Prefix::decode(bytes)
        .is_ok_and(|(prefix, ..)| prefix.traffic == Traffic::Cast && prefix.control == NO_CONTROL)
}

/// The same fields with another payload.
fn with_payload(blank: &[u8], payload: &[u8]) -> Vec<u8> {
    let (prefix, ..) = Prefix::decode(blank).unwrap();
    let header = PREFIX_BYTES + 8 * usize::from(prefix.words);
    [&blank[..header], payload].concat()
}

/// The same, of another origin.
fn of(blank: &[u8], origin: usize) -> Vec<u8> {
    let (mut prefix, ..) = Prefix::decode(blank).unwrap();
    prefix.identification.origin = Incarnation(100 + origin as u64);
    let mut bytes = vec![0; PREFIX_BYTES];
    prefix.encode(&mut bytes);
    bytes.extend(&blank[PREFIX_BYTES..]);
    bytes
}

fn run(origin: u16, frames: u32) -> Vec<u8> {
    [&origin.to_le_bytes()[..], &frames.to_le_bytes()[..]].concat()
}

#[test]
fn orders_of_what_cannot_be_are_counted_and_order_nothing() {
    let cut = run(3, 1)[..5].to_vec();
    let twice = [run(3, 1), run(3, 1)].concat();
    let endless = [run(3, u32::MAX), run(2, u32::MAX)].concat();
    for (what, payload) in [
        ("nothing", Vec::new()),
        ("half a run", cut),
        ("nobody", run(4, 1)),
        ("nobody at all", run(u16::MAX, 1)),
        ("the sequencer itself", run(0, 1)),
        ("no casts", run(3, 0)),
        ("the same twice", twice),
        ("a good run and rubbish", [run(3, 1), vec![7; 3]].concat()),
        ("more than there can be", endless),
    ] {
        let config = |limit| Config { frame_number_limit: limit, ..Config::default() };
        let mut world = World::new(4, SEQUENCER, &config(1 << 31));
        let (_, order) = lost_blank(SEQUENCER);
        world.inject(VICTIM, &with_payload(&order, &payload));
        world.steps(10);
        assert_eq!(world.nodes[VICTIM].counted("SEQUENCER", "order that does not decode"), 1, "{what}");
        // What it would have ordered waits for an order.
        world.cast(SENDER, b"unordered");
        world.nodes[0].stopped = true;
        world.steps(100);
        assert!(world.nodes[VICTIM].log.casts.is_empty(), "{what}");
    }
}

#[test]
fn orders_of_one_who_does_not_order_are_counted_and_order_nothing() {
    let (mut world, order) = lost_blank(SEQUENCER);
    // What member 2 truly casts under that number comes too late.
    world.inject(VICTIM, &of(&order, 2));
    world.cast(2, b"true");
    world.steps(100);
    assert!(world.nodes[VICTIM].log.casts.is_empty(), "the true order is not there yet");
    world.lose = Box::new(|_, _| false);
    world.steps(20_000);
    assert_eq!(world.nodes[VICTIM].counted("SEQUENCER", "order of one who does not order"), 1);
    assert_eq!(world.nodes[VICTIM].log.casts, [(3, b"first".to_vec())]);
    for honest in [0, 2, 3] {
        assert_eq!(world.nodes[honest].log.casts, [(3, b"first".to_vec()), (2, b"true".to_vec())]);
    }
}

#[test]
fn turns_and_orders_that_come_twice_or_late_change_nothing() {
    for spec in [TOTAL, SEQUENCER] {
        let (mut world, blank) = lost_blank(spec);
        world.lose = Box::new(|_, _| false);
        world.steps(2000);
        for n in 0..20u8 {
            for node in 0..4 {
                world.cast(node, &[n, node as u8]);
                let sent: Vec<_> = world.nodes.iter_mut().flat_map(|n| std::mem::take(&mut n.sent)).collect();
                for bytes in sent.iter().filter(|bytes| is_blank(bytes)).chain([&blank]) {
                    (0..4).for_each(|to| world.inject(to, bytes));
                }
            }
            world.steps(3);
        }
        world.steps(20_000);
        for node in 0..4 {
            assert_eq!(world.nodes[node].log.casts.len(), 81, "{spec}");
            assert!(world.nodes[node].log.casts == world.nodes[0].log.casts, "{spec}");
        }
        assert!(world.nodes[VICTIM].counted("NAK", "duplicate") > 20, "{spec}");
        let own = world.nodes[0].endpoint.dropped().own;
        assert!(own > 20, "{spec}: {own}");
    }
}

/// Whatever bit of a cast without content is false: nobody panics, and an invitation of no member is counted.
#[test]
fn turns_and_orders_with_false_fields_do_no_harm() {
    for spec in [TOTAL, SEQUENCER] {
        let (_, blank) = lost_blank(spec);
        let mut strange = 0;
        for at in PREFIX_BYTES * 8..blank.len() * 8 {
            let (mut world, mut blank) = lost_blank(spec);
            blank[at / 8] ^= 1 << (at % 8);
            world.inject(VICTIM, &blank);
            for node in 0..4 {
                world.cast(node, b"goes on");
            }
            world.steps(60);
            let counted = |layer, what| world.nodes[VICTIM].counted(layer, what);
            strange += counted("TOTAL", "invitation of no member")
                + counted("SEQUENCER", "order that does not decode")
                + counted("SEQUENCER", "order of one who does not order");
        }
        assert!(strange > 2, "{spec}: {strange}");
    }
}

#[test]
fn requests_for_a_turn_that_make_no_sense_are_counted_and_change_nothing() {
    let (mut world, blank) = lost_blank(TOTAL);
    world.lose = Box::new(|_, _| false);
    world.steps(2000);
    let request = |origin: usize, payload: &[u8]| {
        let (mut prefix, ..) = Prefix::decode(&blank).unwrap();
        (prefix.traffic, prefix.control, prefix.words) = (Traffic::Raw, 0, 0);
        prefix.identification.origin = Incarnation(100 + origin as u64);
        let mut bytes = vec![0; PREFIX_BYTES];
        prefix.encode(&mut bytes);
        bytes.extend(payload);
        bytes
    };
    for payload in [&[][..], &[0], &[2], &[1, 1], &[9; 50]] {
        world.inject(0, &request(2, payload));
    }
    world.inject(0, &request(0, &[1]));
    assert_eq!(world.nodes[0].counted("TOTAL", "request that does not decode"), 5);
    // Somebody in the ring asks, and one who wants nothing: it is invited, has nothing, and is left out again.
    for _ in 0..50 {
        world.inject(0, &request(2, &[1]));
        world.cast(0, b"more");
        world.steps(20);
    }
    assert!(world.nodes[0].counted("TOTAL", "request of one in the ring") > 0);
    world.steps(20_000);
    for node in 0..4 {
        assert_eq!(world.nodes[node].log.casts.len(), 51);
        assert!(world.nodes[node].log.casts == world.nodes[0].log.casts);
    }
}
