//! One group's stack at work.
//!
//! - `install`: how a stack comes to be;
//! - `enter`: the application's casts and sends go in;
//! - `large`: messages larger than a frame go in, and are put together again;
//! - `arrive`: frames come in, by plan or by layers;
//! - `emerge`: deliveries and events go to the application;
//! - `cycle`: what one iteration of the driver loop does;
//! - `succeed`: what the stack of one view hands over to that of the next;
//! - `account`: what can be asked.

mod account;
mod arrive;
#[cfg(test)]
mod bounded;
mod cycle;
mod emerge;
mod enter;
mod install;
mod large;
mod succeed;
mod told;

pub use install::InstallError;
pub(crate) use install::{Checked, Compiled, Specs, compile};
pub(crate) use succeed::Legacies;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use self::large::{LargeMessages, Waiting};
use crate::accel::broken::Broken;
use crate::accel::pack::OpenPack;
use crate::accel::plan::Plans;
use crate::buf::Region;
use crate::config::Shadow;
use crate::group::Ticket;
use crate::id::{Rank, RankSet, ViewId};
use crate::stack::build::Prompts;
use crate::stack::core::Core;
use crate::stack::engine::Engine;
use crate::stack::event::{ExitReason, List, NextView};
use crate::stats::{FastPath, MissCount, PostProcessing};
use crate::time::Time;
use crate::transport::Received;
use crate::view::LocalView;
use crate::wire::Traffic;

/// A group's stack in one view.
pub(crate) struct Stack {
    pub(crate) engine: Engine,
    pub(crate) plans: Plans,
    casts: Region,
    /// Room that frames for casts and for sends keep for the header.
    cast_header_room: usize,
    send_header_room: usize,
    payload_max: usize,
    send_payload_max: usize,
    open: OpenPack,
    /// Own casts on their way up together.
    own_run: Vec<List>,
    waiting: VecDeque<Waiting>,
    /// How many of the first that wait belong to this view, once the application has said so.
    of_this_view: Option<usize>,
    large: LargeMessages,
    waiting_max: usize,
    /// Frames of the control region that sends leave to acknowledgements, gossip and repair.
    control_reserve: usize,
    /// Bits of the cast-send and send-send guards that close the entry.
    entry: [u64; 2],
    /// Those of the cast-send guard that close it to what layers cast: whose turn it is they know themselves.
    entry_of_blanks: u64,
    pack: bool,
    pack_delay: Duration,
    /// When the open pack was begun.
    open_since: Time,
    shadow: Shadow,
    pub(crate) divergences: Vec<String>,
    early: Vec<Early>,
    early_max: usize,
    early_delay: Duration,
    /// Held casts of one origin at which further ones are dropped. It is a share per origin: were it one bound for all,
    /// members could fill their queues with what the others have no room to accept, for ever.
    order_share: usize,
    releases: Vec<u32>,
    /// What is cast now is agreed and not safe ([`Agreed`](crate::group::Agreed)).
    agreed: bool,
    /// A frame has left in this iteration: further messages are packed until its end.
    sent: bool,
    pub(crate) busy: bool,
    /// The same before the frames of this iteration came.
    pub(crate) was_busy: bool,
    /// Casts have come to wait at a closed entry: the layers are told soon.
    stuck: bool,
    post_batch: u32,
    post_delay: Duration,
    /// The configuration's, for [`Group::dump`](crate::group::Group::dump).
    time_outs: Box<[(&'static str, Duration)]>,
    post_due: Time,
    /// Layers that are prompted, from the top down; whether whenever there is work, or if casts are held; and the work there
    /// was when they were.
    prompted: Box<[(usize, Prompts)]>,
    prompt_always: bool,
    prompt_if_held: bool,
    prompted_work: u32,
    /// The work that the last pieces of post-processing took note of, and how many pieces a pass has.
    posted_work: u32,
    pieces_of_a_pass: u64,
    /// The work there was when post-processing looked last whether messages had come, and when one last had.
    known_work: u32,
    came_at: Time,
    number_limit: u64,
    send_number_limit: u64,
    /// The application wants the loop that drives it to end.
    pub(crate) asks_to_stop: bool,
    /// Members whose frames have another stack's hash in this view, that hash, and how many of their frames had it.
    pub(crate) unlike: Vec<(Rank, u64, u32)>,
    /// A cast was refused and waits for room.
    refused: bool,
    /// Peers whose windows refused a send, and whether one was refused for want of a frame.
    refused_by: RankSet,
    refused_frame: bool,
    exited: Option<ExitReason>,
    exit_told: bool,
    /// The channel of an exited group has been given up.
    pub(crate) closed: bool,
    /// The channel of the next view has been asked for.
    pub(crate) opening: bool,
    /// The application wants out; the layers see to it.
    leaving: bool,
    /// It could not take in a part of the state: it gets no more of it.
    state_refused: bool,
    /// Some layer agrees on views.
    live: bool,
    /// The view that follows.
    next: Option<Rc<NextView>>,
    /// Views of this group so far.
    views: u64,
    /// Whether the application has been told of the present view.
    told: bool,
    /// The present view is about to end, and the application has not been told so because it has not been told of the view.
    block_untold: bool,
    /// The view it was told of last, if that is one before: who gets the group's state learns of views later (XFER).
    past: Option<Rc<LocalView>>,
    /// Which of the views counts for what is delivered now, and those that it has not been told of.
    ids_of: u64,
    untold: Vec<(ViewId, u64)>,
    /// The application was not ready for the part of the state that begins there: it comes first.
    state_due: Option<u64>,
    /// It has taken in parts: whose, how much it has, and whether that is all. The layers are still to be told.
    state_taken: Option<(Rank, u64, bool)>,
    /// Payloads copied at the ends of views, and in past ones.
    copies: u64,
    /// Post-processing of past views.
    post: PostProcessing,
    tickets: u64,
    first_ticket: Ticket,
    fast: FastPath,
    misses: Vec<MissCount>,
    delivered: u64,
    sends: u64,
    sends_delivered: u64,
    cast_frames: u64,
    /// What is wrong on purpose.
    pub(crate) broken: Broken,
}

/// A frame that came ahead of its turn.
struct Early {
    origin: Rank,
    traffic: Traffic,
    since: Time,
    received: Received,
}

impl Stack {
    /// With cookies that keep only the bits of `mask`.
    #[cfg(feature = "laboratory")]
    pub(crate) fn with_cookies_masked(mut self, mask: u64) -> Stack {
        for cookies in &mut self.engine.core.cookies {
            cookies[Traffic::Cast as usize] &= mask;
            cookies[Traffic::Send as usize] &= mask;
        }
        for plan in self.plans.iter_mut().flatten() {
            plan.cookie &= mask;
        }
        self
    }

    /// What predicts the frames of members that were in `old`, too, is what it was there: what the laboratory breaks.
    fn predict_as(&mut self, old: &Stack) {
        let (core, before) = (&mut self.engine.core, &old.engine.core);
        for (rank, member) in core.view.view().members.iter().enumerate() {
            if let Some(rank_before) = before.view.rank_of(member.incarnation) {
                core.cookies[rank] = before.cookies[rank_before.index()];
            }
        }
        for plan in self.plans.iter_mut().flatten() {
            plan.cookie = core.cookies[core.own.index()][plan.kind.traffic() as usize];
        }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.engine.core
    }
}
