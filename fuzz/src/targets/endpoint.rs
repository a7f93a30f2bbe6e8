//! A whole endpoint, fed with frames that anybody may have made.

use std::collections::VecDeque;
use std::time::Duration;

use wadjet::wire::control::GOSSIP_HEADER_BYTES;
use wadjet::wire::full::{Prefix, STACK_CONTROL};
use wadjet::{Rank, RankSet};

use super::node::{InFlight, Node, WINDOW_FRAMES};
use crate::Target;

/// [`Endpoint::receive`](wadjet::Endpoint::receive), without a checksum in the way.
pub(super) const ENDPOINT: Target = Target {
    name: "endpoint",
    what: "forged, damaged and stale frames never make an endpoint panic, disagree with its shadow, hold more frames \
        than it said, or answer out of proportion",
    weight: 20,
    seeds: || (0..4).map(conversation).chain([exaggerated(conversation(0))]).collect(),
    run: |script| {
        let mut node = Node::new(1, MEMBERS, STACK, true);
        let mut out = VecDeque::new();
        let mut rest = script;
        while let Some(([ticks, low, high], after)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
            let (frame, after) = after.split_at(length);
            rest = after;
            if ticks % 4 == 0 {
                // Something to acknowledge, to ask for again, and to lie about.
                // Refused when the frames above say so: that is flow control, not an error.
                let _ = node.group().cast(&[*ticks; 20]);
                let _ = node.group().send(&RankSet::one(Rank(0)), &[*ticks; 10]);
            }
            node.receive(frame);
            let answers = node.transmit(&mut out);
            node.poll(TICK * u32::from(*ticks));
            let answers = answers + node.transmit(&mut out);
            assert!(answers <= ANSWERS_MAX, "{answers} frames in answer to one");
            out.clear();
        }
    },
};

const MEMBERS: usize = 3;
const STACK: &str = "STABLE:FC:UNICAST:LOCAL:NAK:COM";
const TICK: Duration = Duration::from_micros(20);
/// Ticks, and the length of the frame that follows.
const RECORD_HEADER_BYTES: usize = 3;
/// What one frame and one poll may set off: the windows towards both others anew, and a few reports and requests.
const ANSWERS_MAX: usize = 4 * WINDOW_FRAMES as usize + 32;

/// What member 1 is sent while the group talks and loses every frame whose turn `lossy` says.
fn conversation(lossy: usize) -> Vec<u8> {
    let mut nodes: Vec<Node> = (0..MEMBERS).map(|rank| Node::new(rank, MEMBERS, STACK, true)).collect();
    let mut script = Vec::new();
    let mut turn = 0;
    for round in 0..12_u8 {
        for (rank, node) in nodes.iter_mut().enumerate() {
            for message in 0..usize::from(round) % 4 {
                let _ = node.group().cast(&vec![round; 8 + 8 * message]);
            }
            if round % 3 == 0 {
                let to = RankSet::one(Rank::at((rank + 1) % MEMBERS));
                let _ = node.group().send(&to, &[round; 12]);
            }
        }
        for _ in 0..4 {
            let mut wire = VecDeque::new();
            for node in &mut nodes {
                node.poll(TICK * 8);
                node.transmit(&mut wire);
            }
            for InFlight { to, bytes } in wire {
                turn += 1;
                if lossy > 0 && turn % (2 + lossy) == 0 {
                    continue;
                }
                if to.contains(Rank(1)) {
                    script.push(8);
                    script.extend((bytes.len() as u16).to_le_bytes());
                    script.extend(&bytes);
                }
                for rank in to.iter() {
                    nodes[rank.index()].receive(&bytes);
                }
            }
        }
    }
    script
}

/// The same, with every value in a report as large as can be.
fn exaggerated(mut script: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(record) = script.get_mut(at..).filter(|record| record.len() > RECORD_HEADER_BYTES) {
        let length = usize::from(u16::from_le_bytes([record[1], record[2]]));
        let frame = &mut record[RECORD_HEADER_BYTES..][..length];
        if let Ok((prefix, _, payload)) = Prefix::decode(frame)
            && prefix.control == STACK_CONTROL
        {
            let values = frame.len() - payload.len() + GOSSIP_HEADER_BYTES;
            frame[values..].fill(0xff);
        }
        at += RECORD_HEADER_BYTES + length;
    }
    script
}
