//! METER adds up exactly what passes it, whichever way that goes: by plans, of which its effects wait until a layer runs, one
//! by one or in runs, or by the layers.

mod common;

use common::{Dice, World};
use wadjet::{Config, Rank, RankSet, Shadow};

/// How a stack carries messages: by the layers, by plans, and by both.
const MODES: [(bool, Shadow); 3] = [(false, Shadow::Off), (true, Shadow::Off), (true, Shadow::Panic)];

const STACKS: [&str; 5] = [
    "METER:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    // With fields that travel, and two that measure the same.
    "METER:CHK_FIFO(wire=yes):METER:CHK_FIFO(wire=yes):STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    // Where own copies pass it, too, and where they do not.
    "METER:STABLE:FC:UNICAST:METER:NAK:CHKSUM:COM",
    // Above what orders: with its turn, by an order, when all hold it.
    "METER:TOTAL(burst=5):FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    "METER:SAFE:TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
];

/// What the first METER from the top of a member says.
fn metered(world: &mut World, node: usize) -> String {
    let node = &mut world.nodes[node];
    let lines = node.endpoint.group(node.key).dump();
    lines.iter().find(|line| line.starts_with("METER")).expect("it is in the stack").clone()
}

/// Messages and bytes that it has heard of each.
fn heard(metered: &str) -> Vec<String> {
    let of = metered.split("; ").filter_map(|part| part.strip_prefix("of "));
    of.map(|text| text.split(", the last").next().unwrap_or(text).to_string()).collect()
}

/// What its application has had of each.
fn had(world: &World, node: usize) -> Vec<String> {
    let log = &world.nodes[node].log;
    let of = |rank: usize| {
        let messages =
            || log.casts.iter().chain(&log.sends).filter(|(origin, _)| usize::from(*origin) == rank);
        let bytes: usize = messages().map(|(_, message)| message.len()).sum();
        format!("{rank}: {} messages, {bytes} bytes", messages().count())
    };
    (0..world.nodes.len()).map(of).collect()
}

/// Three members after random casts and sends, with what each METER says after each of many steps.
fn after_traffic(spec: &str, config: &Config) -> (World, Vec<String>, Vec<String>) {
    let mut world = World::new(3, spec, config);
    let (mut dice, mut cast) = (Dice(7), 0);
    let (mut sent, mut said) = ([[0; 3]; 3], Vec::new());
    for _ in 0..100 {
        for _ in 0..dice.below(12) {
            let (from, bytes) = (dice.below(3) as usize, 1 + dice.below(40) as usize);
            let (to, message) = ((from + 1 + dice.below(2) as usize) % 3, vec![from as u8; bytes]);
            if dice.below(3) > 0 {
                cast += usize::from(world.try_cast(from, &message).is_ok());
            } else {
                let node = &mut world.nodes[from];
                let taken = node.endpoint.group(node.key).send(&RankSet::one(Rank(to as u16)), &message);
                sent[from][to] += usize::from(taken.is_ok());
            }
        }
        world.steps(1 + dice.below(3) as usize);
        said.push(metered(&mut world, 1));
    }
    let all = |world: &mut World| world.nodes.iter().all(|node| node.log.casts.len() == cast);
    assert!(!spec.contains("LOCAL") || world.until(50_000, all), "{spec}");
    world.steps(2000);
    let to = |(to, sent): (usize, &usize)| (*sent > 0).then(|| format!("to {to}: {sent} messages"));
    (world, said, sent[1].iter().enumerate().filter_map(to).collect())
}

#[test]
fn what_is_added_up_is_what_the_application_has_had() {
    for (spec, pack) in STACKS.iter().flat_map(|spec| [(*spec, false), (*spec, true)]) {
        let mut by_layers = None;
        for (accelerate, shadow) in MODES {
            let what = format!("{spec}, accelerated: {accelerate}, {shadow:?}, packed: {pack}");
            let config = Config { accelerate, shadow, pack, ..Config::default() };
            let (mut world, said, sent) = after_traffic(spec, &config);
            for node in 0..3 {
                // The framing of packs counts as bytes, and so does what TOTAL says in casts of its own.
                let messages_alone = pack || spec.contains("TOTAL");
                let told = |lines: Vec<String>| match messages_alone {
                    true => {
                        lines.iter().map(|line| line.split(',').next().unwrap_or(line).to_string()).collect()
                    }
                    false => lines,
                };
                let [measured, true_count] = [heard(&metered(&mut world, node)), had(&world, node)].map(told);
                assert_eq!(measured, true_count, "{what}: member {node}");
            }
            let line = metered(&mut world, 1);
            assert!(
                !sent.is_empty() && sent.iter().all(|sent| line.contains(sent)),
                "{what}: {line}: {sent:?}"
            );
            let hits = world.nodes[1].stats().fast_path.deliver_hit;
            assert_eq!(accelerate, hits > 100, "{what}: {hits} by plan");
            // When messages come is the same where nothing but the way differs that they take.
            if !pack && !spec.contains("TOTAL") {
                let by_layers = by_layers.get_or_insert(said.clone());
                assert_eq!(&said, by_layers, "{what}");
            }
        }
    }
}
