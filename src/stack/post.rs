//! Post-processing: what follows from ordinary messages, some time after them.
//!
//! A *pass* takes the own values into their rows, lets each layer draw its conclusions from the bottom up, sees what of
//! the own values must be told, and lets go of what nobody needs any more. After messages by plan it is done in *pieces*, a
//! few in each iteration and more the more messages there were, so that no message waits for a whole pass and none that
//! comes all the time can put it off. What follows from events that layers have handled is done at once: a view that is
//! being agreed on waits for it.

use std::ops::Range;
use std::rc::Rc;

use super::core::Core;
use super::engine::Engine;
use super::layer::{Context, Layer, Posts};
use crate::id::Rank;
use crate::stats::PostProcessing;

/// How far a pass has come.
pub(crate) struct Posting {
    stages: Rc<[Stage]>,
    /// The stage of the next piece, and the member it begins with; all stages are through if there is no pass.
    at: usize,
    member: usize,
    members: usize,
    /// In this pass, what others' frames pin is counted.
    counted: bool,
    pub(crate) counts: PostProcessing,
}

/// What is done one after the other: for each member, and then for all.
#[derive(Clone, Copy, Debug)]
enum Stage {
    OwnRows,
    Layer(usize, Posts),
    Report,
    Retained,
}

/// What one piece does at most.
#[derive(Clone, Copy)]
struct Piece {
    members: usize,
    /// Frames that it lets go of, or counts.
    frames: u64,
}

const FRAMES_A_PIECE: u64 = 8;
/// A piece is for so many members as have so many reports of each other.
const PAIRS_A_PIECE: usize = 16;

impl Posting {
    /// For a stack of these layers, top to bottom.
    pub(crate) fn new(layers: &[Box<dyn Layer>], members: usize) -> Posting {
        let posts = layers.iter().enumerate().rev().map(|(at, layer)| (at, layer.posts()));
        let posts = posts.filter(|(_, posts)| *posts != Posts::Nothing);
        let mut stages = Vec::with_capacity(layers.len() + 3);
        stages.push(Stage::OwnRows);
        stages.extend(posts.map(|(at, posts)| Stage::Layer(at, posts)));
        stages.extend([Stage::Report, Stage::Retained]);
        Posting {
            at: stages.len(),
            stages: stages.into(),
            member: 0,
            members,
            counted: false,
            counts: PostProcessing::default(),
        }
    }

    /// Whether there is a pass.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.at < self.stages.len()
    }

    fn piece(&self) -> Piece {
        Piece { members: (PAIRS_A_PIECE / self.members).max(1), frames: FRAMES_A_PIECE }
    }

    /// Pieces of a pass that lets go of `frames` frames.
    pub(crate) fn pieces_of_a_pass(&self, frames: u64) -> u64 {
        (self.stages.len() * self.members.div_ceil(self.piece().members)) as u64 + frames / FRAMES_A_PIECE
    }

    /// A copy without a pass.
    pub(crate) fn fork(&self) -> Posting {
        Posting { stages: Rc::clone(&self.stages), at: self.stages.len(), ..*self }
    }
}

impl Engine {
    /// A whole pass, at once.
    pub(crate) fn post(&mut self) {
        self.begin_post();
        let (stages, members) = (Rc::clone(&self.posting.stages), self.posting.members);
        for stage in stages.iter() {
            match *stage {
                Stage::OwnRows => self.core.gossip_own(0..members),
                Stage::Layer(layer, posts) => {
                    let ranks = if posts == Posts::EachMember { 0..members as u16 } else { 0..0 };
                    self.post_layer(layer, ranks, true);
                }
                Stage::Report => {
                    self.core.gossip_look();
                    self.core.gossip_look_at(0..members);
                    self.post_report();
                }
                Stage::Retained => {
                    let counted = self.posting.counted;
                    for member in 0..members as u16 {
                        self.core.let_go_of(Rank(member), u64::MAX, counted);
                    }
                    if counted {
                        self.core.bound_retention();
                    }
                }
            }
        }
        self.posting.at = stages.len();
        self.posting.counts.whole += 1;
        // What the pass itself has sent through the layers is no reason for another one at once.
        self.core.by_layers = false;
    }

    /// Begins a pass.
    pub(crate) fn begin_post(&mut self) {
        self.core.work = 0;
        (self.posting.at, self.posting.member) = (0, 0);
    }

    /// Goes on with the pass that is under way by so many pieces.
    pub(crate) fn post_pieces(&mut self, pieces: u64) {
        let piece = self.posting.piece();
        for _ in 0..pieces {
            self.post_piece(piece);
            self.posting.counts.pieces += 1;
            if !self.posting.is_under_way() {
                self.posting.counts.passes += 1;
                break;
            }
        }
        self.core.by_layers = false;
    }

    fn post_piece(&mut self, piece: Piece) {
        let Engine { core, posting, .. } = self;
        let (stage, first) = (posting.stages[posting.at], posting.member);
        let mut end = posting.members.min(first.saturating_add(piece.members));
        let last = end == posting.members;
        let members = (first..end).map(Rank::at);
        match stage {
            Stage::OwnRows => core.gossip_own(first..end),
            Stage::Layer(layer, Posts::EachMember) => self.post_layer(layer, first as u16..end as u16, last),
            Stage::Layer(layer, _) => {
                end = posting.members;
                self.post_layer(layer, 0..0, true);
            }
            Stage::Report => {
                if first == 0 {
                    core.gossip_look();
                }
                core.gossip_look_at(first..end);
                if last {
                    self.post_report();
                }
            }
            Stage::Retained => {
                let counted = posting.counted;
                end = first
                    + members.take_while(|member| core.let_go_of(*member, piece.frames, counted)).count();
                if counted && end == posting.members {
                    core.bound_retention();
                }
            }
        }
        let posting = &mut self.posting;
        posting.member = end;
        if end == posting.members {
            (posting.at, posting.member) = (posting.at + 1, 0);
        }
    }
}

impl Engine {
    /// One layer draws its conclusions: for these members, and then for all if that is `last`.
    fn post_layer(&mut self, layer: usize, members: Range<u16>, last: bool) {
        let Engine { core, layers, .. } = self;
        core.merge_carried();
        core.have_effects_of(layer);
        let (handler, context) = (&mut layers[layer], &mut Context { core, layer });
        for member in members {
            handler.post_member(context, Rank(member));
        }
        if last {
            handler.post(context);
        }
        self.run();
    }

    /// What is to be told when all own values have been looked at.
    fn post_report(&mut self) {
        let core = &mut self.core;
        self.posting.counted = core.pinned_bound() > core.retain_bytes_max;
        core.gossip_post();
        self.run();
    }
}

impl Core {
    /// Lets go of what is not retained any more of a member, and counts what is if that is to be `counted`: of so many
    /// frames at most. Returns whether that was all.
    fn let_go_of(&mut self, member: Rank, frames_max: u64, counted: bool) -> bool {
        let (casts, sends) = (&mut self.casts[member.index()], &mut self.sends[member.index()]);
        let gone = casts.let_go(frames_max) & sends.let_go(frames_max);
        gone && (!counted || member == self.own || casts.count(frames_max))
    }
}
