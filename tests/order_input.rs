//! Turns, requests for them and orders that are forged, stale, doubled or out of range: dropped, counted, and no harm.

mod common;

use common::World;
use wadjet::wire::full::{NO_CONTROL, PREFIX_BYTES, Prefix};
use wadjet::wire::pack::{note, run_header};
use wadjet::wire::{PACK_FLAG, Traffic};
use wadjet::{Config, Incarnation, Shadow};

/// No checksum here: what is forged well enough reaches the layers.
const TOTAL: &str = "TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:COM";
const SEQUENCER: &str = "SEQUENCER:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:COM";
/// Who is lied to, and who asks for a turn or is ordered; member 2 stays silent.
const VICTIM: usize = 1;
const SENDER: usize = 3;

/// A world in which member 0 has just cast a blank, by the plan or by the layers, which is lost on its way to the victim.
fn lost_blank(spec: &str, accelerate: bool) -> (World, Vec<u8>) {
    let mut world = World::new(4, spec, &config(accelerate));
    world.record = true;
    let header = world.nodes[0].stats().header_bytes;
    let lost = std::rc::Rc::new(std::cell::RefCell::new(None::<Vec<u8>>));
    let seen = std::rc::Rc::clone(&lost);
    world.lose = Box::new(move |to, received| {
        let bytes = received.bytes();
        // The first of the blanks is of member 0; no other blank is lost.
        let mut lost = seen.borrow_mut();
        let same = is_blank(bytes, header) && lost.as_deref().is_none_or(|lost| lost == bytes);
        if same {
            lost.get_or_insert_with(|| bytes.to_vec());
        }
        to == VICTIM && same
    });
    world.cast(SENDER, b"first");
    let mut blank = None;
    for _ in 0..1000 {
        world.step();
        blank = world.nodes[0].sent.iter().find(|bytes| is_blank(bytes, header)).cloned();
        if blank.is_some() {
            break;
        }
    }
    (world, blank.expect("member 0 invites, or orders"))
}

fn config(accelerate: bool) -> Config {
    Config { accelerate, shadow: if accelerate { Shadow::Panic } else { Shadow::Off }, ..Config::default() }
}

/// Where the payload of a cast begins, if `bytes` are one.
fn payload_at(bytes: &[u8], header: usize) -> Option<usize> {
    match Prefix::decode(bytes) {
        Ok((prefix, ..))
            if prefix.traffic == Traffic::Cast && prefix.control == NO_CONTROL && prefix.pack =>
        {
            Some(PREFIX_BYTES + 8 * usize::from(prefix.words))
        }
        Ok(_) => None,
        Err(_) => (wadjet::wire::word(bytes, 0)? & PACK_FLAG != 0).then_some(header),
    }
}

fn is_blank(bytes: &[u8], header: usize) -> bool {
    payload_at(bytes, header).and_then(|at| bytes.get(at..)).is_some_and(|payload| note(payload).is_some())
}

/// The same fields with another note.
fn with_note(world: &World, blank: &[u8], note: &[u8]) -> Vec<u8> {
    let at = payload_at(blank, world.nodes[0].stats().header_bytes).unwrap();
    [&blank[..at], &run_header(0, note.len() as u16), note].concat()
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
    let wrong = [
        ("nothing", Vec::new()),
        ("half a run", cut),
        ("nobody", run(4, 1)),
        ("nobody at all", run(u16::MAX, 1)),
        ("the sequencer itself", run(0, 1)),
        ("no casts", run(3, 0)),
        ("the same twice", twice),
        ("a good run and rubbish", [run(3, 1), vec![7; 3]].concat()),
        ("more than there can be", endless),
    ];
    for ((what, note), accelerate) in
        wrong.into_iter().flat_map(|wrong| [(wrong.clone(), true), (wrong, false)])
    {
        let config = Config { frame_number_limit: 1 << 31, ..config(accelerate) };
        let mut world = World::new(4, SEQUENCER, &config);
        let (_, order) = lost_blank(SEQUENCER, accelerate);
        world.inject(VICTIM, &with_note(&world, &order, &note));
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
    let (mut world, order) = lost_blank(SEQUENCER, false);
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
    for (spec, accelerate) in [(TOTAL, true), (TOTAL, false), (SEQUENCER, true), (SEQUENCER, false)] {
        let (mut world, blank) = lost_blank(spec, accelerate);
        let header = world.nodes[0].stats().header_bytes;
        world.lose = Box::new(|_, _| false);
        world.steps(2000);
        for n in 0..20u8 {
            for node in 0..4 {
                world.cast(node, &[n, node as u8]);
                let sent: Vec<_> = world.nodes.iter_mut().flat_map(|n| std::mem::take(&mut n.sent)).collect();
                for bytes in sent.iter().filter(|bytes| is_blank(bytes, header)).chain([&blank]) {
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
        let doubled = world.nodes[VICTIM].counted("NAK", "duplicate");
        assert!(doubled > 20, "{spec} {accelerate}: {doubled} {:?}", world.nodes[VICTIM].stats().misses);
        // Whose it is a full header says; nobody else has the cookie.
        let dropped = world.nodes[0].endpoint.dropped();
        let own = if accelerate { dropped.unknown_cookie } else { dropped.own };
        assert!(own > 20, "{spec} {accelerate}: {dropped:?}");
    }
}

/// Whatever bit of a blank is false: nobody panics, and an invitation of no member is counted.
#[test]
fn turns_and_orders_with_false_fields_do_no_harm() {
    for (spec, accelerate) in [(TOTAL, true), (TOTAL, false), (SEQUENCER, true), (SEQUENCER, false)] {
        let (_, blank) = lost_blank(spec, accelerate);
        let mut strange = 0;
        // Every bit of what plans read, the mark among them; of full headers, which are long, some bits of every byte.
        let (first, step) = if accelerate { (8, 1) } else { (PREFIX_BYTES, 3) };
        for at in (first * 8..blank.len() * 8).step_by(step) {
            let (mut world, mut blank) = lost_blank(spec, accelerate);
            blank[at / 8] ^= 1 << (at % 8);
            world.inject(VICTIM, &blank);
            for node in 0..4 {
                world.cast(node, b"goes on");
            }
            world.steps(60);
            let counted = |layer, what| world.nodes[VICTIM].counted(layer, what);
            strange += counted("TOTAL", "invitation of no member")
                + counted("TOTAL", "note that does not decode")
                + counted("SEQUENCER", "order that does not decode")
                + counted("SEQUENCER", "order of one who does not order");
        }
        assert!(strange > 2, "{spec} {accelerate}: {strange}");
    }
}

/// A control message of TOTAL, in the view of a cast with a full header.
fn request(cast: &[u8], origin: usize, payload: &[u8]) -> Vec<u8> {
    let (mut prefix, ..) = Prefix::decode(cast).unwrap();
    (prefix.traffic, prefix.control, prefix.words, prefix.pack) = (Traffic::Raw, 0, 0, false);
    prefix.identification.origin = Incarnation(100 + origin as u64);
    let mut bytes = vec![0; PREFIX_BYTES];
    prefix.encode(&mut bytes);
    bytes.extend(payload);
    bytes
}

/// A request that comes late: who made it has nothing to cast any more, and leaves the ring again before who invited it has
/// looked at the ring. It is invited once.
#[test]
fn who_asked_and_wants_nothing_is_invited_once() {
    let spec = TOTAL.replace("TOTAL", "TOTAL(leave=1)");
    let late = std::time::Duration::from_millis(1);
    let config = Config { post_delay: late, ..Config { shadow: Shadow::Off, ..config(true) } };
    let mut world = World::new(4, &spec, &config);
    let (_, cast) = lost_blank(&spec, false);
    world.inject(0, &request(&cast, 2, &[1]));
    world.steps(50_000);
    let counted = |what| world.nodes.iter().map(|node| node.counted("TOTAL", what)).sum::<u64>();
    assert_eq!((counted("invitations"), counted("turns passed on in leaving")), (1, 1));
}

#[test]
fn requests_for_a_turn_that_make_no_sense_are_counted_and_change_nothing() {
    let (mut world, blank) = lost_blank(TOTAL, false);
    world.lose = Box::new(|_, _| false);
    world.steps(2000);
    let request = |origin, payload: &[u8]| request(&blank, origin, payload);
    for payload in [&[][..], &[0], &[2], &[1, 1], &[9; 50]] {
        world.inject(0, &request(2, payload));
    }
    world.inject(0, &request(0, &[1]));
    assert_eq!(world.nodes[0].counted("TOTAL", "request that does not decode"), 5);
    // One who wants nothing asks: it is invited, has nothing, and is left out again.
    for _ in 0..50 {
        world.inject(0, &request(2, &[1]));
        world.cast(0, b"more");
        world.steps(20);
    }
    // Somebody in the ring asks: it has just cast.
    world.cast(2, b"last");
    let last = |world: &mut World| world.nodes[0].log.casts.last() == Some(&(2, b"last".to_vec()));
    assert!(world.until(20_000, last));
    world.inject(0, &request(2, &[1]));
    assert_eq!(world.nodes[0].counted("TOTAL", "request of one in the ring"), 1);
    world.steps(20_000);
    for node in 0..4 {
        assert_eq!(world.nodes[node].log.casts.len(), 52);
        assert!(world.nodes[node].log.casts == world.nodes[0].log.casts);
    }
}
