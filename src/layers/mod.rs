//! The microprotocols, one file each. Every file opens with its contract, a diagram of its messages, and its source.

mod chk_fifo;
mod chksum;
mod com;
mod count;
mod evs;
mod fc;
mod fixed;
mod frag;
mod local;
mod mbrship;
mod meter;
mod misorder;
mod mistake;
mod nak;
mod safe;
mod sequencer;
mod stable;
mod suspect;
mod total;
mod trace;
mod unicast;
mod xfer;

use crate::stack::registry::LayerEntry;

/// The entries of all layers of this library.
pub(crate) fn entries() -> Vec<LayerEntry> {
    vec![
        chk_fifo::entry(),
        chksum::entry(),
        com::entry(),
        count::entry(),
        evs::entry(),
        fc::entry(),
        fixed::entry(),
        frag::entry(),
        local::entry(),
        mbrship::entry(),
        meter::entry(),
        nak::entry(),
        safe::entry(),
        sequencer::entry(),
        stable::entry(),
        suspect::entry(),
        total::entry(),
        trace::entry(),
        unicast::entry(),
        xfer::entry(),
    ]
}

/// A stack for a fixed view, which nobody joins or leaves: reliable FIFO multicast and sends, flow-controlled. Over a transport that
/// keeps bytes whole CHKSUM can be left out.
pub const FIXED_STACK: &str = "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

/// The stack for a fixed view over a transport that keeps bytes whole.
pub const FIXED_STACK_WITH_INTEGRITY: &str = "STABLE:FC:UNICAST:LOCAL:NAK:COM";

/// The default stack, of a group whose views are agreed on: virtually synchronous, with messages larger than a frame,
/// flow-controlled, self-delivering. Over a transport that keeps bytes whole CHKSUM can be left out.
pub const DEFAULT_STACK: &str = "EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

/// The default stack over a transport that keeps bytes whole.
pub const DEFAULT_STACK_WITH_INTEGRITY: &str = "EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:COM";

/// A stack for replicated services: the default stack, all casts in one order and delivered when all members hold them, and
/// the state for who comes in. Over a transport that keeps bytes whole CHKSUM can be left out.
pub const REPLICATED_STACK: &str =
    "XFER:SAFE:TOTAL:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

/// The stack for replicated services over a transport that keeps bytes whole.
pub const REPLICATED_STACK_WITH_INTEGRITY: &str =
    "XFER:SAFE:TOTAL:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:COM";
