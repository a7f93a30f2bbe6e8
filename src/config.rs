//! Every limit and time-out, with its unit in its name.

use std::time::Duration;

/// What to do when the shadow finds that a plan and the layers disagree: a bug in a layer's declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// No shadow.
    Off,
    /// Remember it: see `Endpoint::divergences`.
    Record,
    /// Panic.
    Panic,
}

/// How an endpoint behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether plans run at all; without them every message takes the layers.
    pub accelerate: bool,
    /// Whether small messages share a frame while the way is busy.
    pub pack: bool,
    /// How long a pack may stay open while the way is busy. A member that reads nothing makes the way look busy for ever;
    /// the others must not wait for it.
    pub pack_delay: Duration,
    /// Whether every plan is repeated by the layers and compared. On in debug builds.
    pub shadow: Shadow,
    /// Largest frame, header and payload together, in bytes; a transport may carry less.
    pub frame_bytes_max: usize,
    /// Casts of one member that may be unacknowledged, in frames. At the limit casts wait. All members of a group must be
    /// given the same: who retains less than others may cast is not let in.
    pub window_frames: u64,
    /// Closed frames of casts that may wait above the stack. At the limit casts are refused ([`CastError::Full`]).
    ///
    /// [`CastError::Full`]: crate::group::CastError::Full
    pub waiting_frames_max: usize,
    /// The longest message that a stack with FRAG carries, in bytes. All members of a group must be given the same: who has
    /// another limit is not let in. Where views are fixed, and nobody asks, what is too long for one member is dropped there,
    /// counted and told as a problem. A longer message is refused ([`CastError::TooLong`]) where it is cast. A layer
    /// parameter may lower the limit.
    ///
    /// [`CastError::TooLong`]: crate::group::CastError::TooLong
    pub message_bytes_max: usize,
    /// Bytes of messages larger than a frame that may wait above the stack, each counted whole until its last fragment
    /// has entered. At the limit casts and sends of such messages are refused ([`CastError::Full`]); one is taken in any
    /// case.
    ///
    /// [`CastError::Full`]: crate::group::CastError::Full
    pub waiting_bytes_max: usize,
    /// Frames for sends, control messages and retransmission headers. At the limit sends are refused and control
    /// messages are put off.
    pub control_frames: usize,
    /// Frames that are ahead of their turn and may wait for it, of all origins. Beyond it they take the layers.
    pub early_frames_max: usize,
    /// How long they may wait; at most a second. A gap is asked for after this and then the `repair_us` of NAK: what is
    /// ahead of its turn waits here first, and only then NAK is told of the gap. Much more than `repair_us` delays every
    /// repair by that much; zero hands them to NAK at the next poll.
    pub early_delay: Duration,
    /// Accepted casts that may wait for their order. Each origin has an equal share of it, at least one and at most
    /// `window_frames`; beyond it further casts of that origin are dropped and repaired later. A repaired gap may bring in
    /// a window more.
    pub order_frames_max: usize,
    /// Frames of others that a group may retain in place, in bytes of the memory they pin (a small message pins the whole
    /// frame it came in). Beyond it post-processing copies them, longest kept first, to memory of the endpoint's own,
    /// which the windows bound. The default is above what full windows of a hundred members pin in ordinary frames.
    pub retain_bytes_max: u64,
    /// Ordinary messages after which post-processing begins; a quarter of the window, if that is less. It is done in pieces,
    /// a few in each iteration, and has ended after as many messages again.
    pub post_batch_messages: u32,
    /// How long the channel of a past view stays open: what was last said in it gets out, and members that missed the
    /// end of the view are heard and told. So long, too, frames are held for a view that is about to be installed.
    pub linger_delay: Duration,
    /// How long post-processing may be put off; at zero it is done at once, and not in pieces.
    pub post_delay: Duration,
    /// How long a change of gossip may go unreported.
    pub gossip_delay: Duration,
    /// Frame numbers of one view. At the limit casts are refused ([`CastError::NumberLimit`]).
    ///
    /// [`CastError::NumberLimit`]: crate::group::CastError::NumberLimit
    pub frame_number_limit: u64,
    /// Numbers of sends to one member in one view. At the limit sends are refused ([`SendError::NumberLimit`]). Where views
    /// follow each other a new one is asked for well before, for casts and sends alike.
    ///
    /// [`SendError::NumberLimit`]: crate::group::SendError::NumberLimit
    pub send_number_limit: u64,
    /// Lines kept by tracing layers. The oldest goes first.
    pub trace_lines_max: usize,
    /// Whether regions try for huge pages.
    pub huge_pages: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            accelerate: true,
            pack: true,
            pack_delay: Duration::from_micros(20),
            shadow: if cfg!(debug_assertions) { Shadow::Panic } else { Shadow::Off },
            frame_bytes_max: 2048,
            window_frames: 1024,
            waiting_frames_max: 64,
            message_bytes_max: 16 << 20,
            waiting_bytes_max: 64 << 20,
            control_frames: 512,
            early_frames_max: 64,
            early_delay: Duration::from_micros(200),
            order_frames_max: 4096,
            retain_bytes_max: 256 << 20,
            post_batch_messages: 256,
            linger_delay: Duration::from_millis(500),
            post_delay: Duration::from_micros(20),
            gossip_delay: Duration::from_micros(500),
            frame_number_limit: FRAME_NUMBERS_MAX,
            send_number_limit: 1 << 40,
            trace_lines_max: 1024,
            huge_pages: false,
        }
    }
}

/// A configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value is out of range.
    #[error("{name} is {value}; give {allowed}")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What would do.
        allowed: &'static str,
    },
}

/// Short gossip is 16 bits and compared as a signed difference: windows must stay below half of that.
pub const WINDOW_FRAMES_MAX: u64 = 1 << 14;

/// No view has more frames of one member, whatever limit a member has set itself.
pub const FRAME_NUMBERS_MAX: u64 = 1 << 40;

/// Longer than NAK's longest `repair_us` makes no sense: repairs would wait for it.
const EARLY_DELAY_MAX: Duration = Duration::from_secs(1);

impl Config {
    /// Held casts of one origin at which further ones are dropped, of a view of `members`. No more than a window: received
    /// frames that wait for their order are no longer their origin's to hold back, and the region has room for so many.
    pub(crate) fn order_share(&self, members: usize) -> usize {
        (self.order_frames_max / members.max(1)).clamp(1, self.window_frames as usize)
    }

    /// Every delay, by name: what [`Group::dump`](crate::group::Group::dump) prints.
    pub(crate) fn time_outs(&self) -> [(&'static str, Duration); 5] {
        [
            ("pack_delay", self.pack_delay),
            ("early_delay", self.early_delay),
            ("post_delay", self.post_delay),
            ("gossip_delay", self.gossip_delay),
            ("linger_delay", self.linger_delay),
        ]
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`ConfigError`] with the first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let error = |name, value, allowed| Err(ConfigError::OutOfRange { name, value, allowed });
        if !(1..=WINDOW_FRAMES_MAX).contains(&self.window_frames) {
            return error("window_frames", self.window_frames, "1 to 16384");
        }
        if !(512..=65_536).contains(&self.frame_bytes_max) {
            return error("frame_bytes_max", self.frame_bytes_max as u64, "512 to 65536");
        }
        if !(1..=1 << 20).contains(&self.waiting_frames_max) {
            return error("waiting_frames_max", self.waiting_frames_max as u64, "1 to 1048576");
        }
        if !(1..=1 << 31).contains(&self.message_bytes_max) {
            return error("message_bytes_max", self.message_bytes_max as u64, "1 to 2^31");
        }
        if !(16..=1 << 20).contains(&self.control_frames) {
            return error("control_frames", self.control_frames as u64, "16 to 1048576");
        }
        if !(1..=FRAME_NUMBERS_MAX).contains(&self.frame_number_limit) {
            return error("frame_number_limit", self.frame_number_limit, "1 to 2^40");
        }
        if !(1..=1 << 40).contains(&self.send_number_limit) {
            return error("send_number_limit", self.send_number_limit, "1 to 2^40");
        }
        if self.early_delay > EARLY_DELAY_MAX {
            let micros = self.early_delay.as_micros().try_into().unwrap_or(u64::MAX);
            return error("early_delay in microseconds", micros, "at most 1000000");
        }
        if self.post_batch_messages == 0 {
            return error("post_batch_messages", 0, "at least 1");
        }
        if !(1..=1 << 24).contains(&self.order_frames_max) {
            return error("order_frames_max", self.order_frames_max as u64, "1 to 2^24");
        }
        if self.early_frames_max > 1 << 16 {
            return error("early_frames_max", self.early_frames_max as u64, "at most 65536");
        }
        if self.trace_lines_max > 1 << 24 {
            return error("trace_lines_max", self.trace_lines_max as u64, "at most 2^24");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_refused_by_name() {
        assert_eq!(Config::default().check(), Ok(()));
        let error = Config { window_frames: 1 << 15, ..Config::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "window_frames is 32768; give 1 to 16384");
        assert!(Config { control_frames: 0, ..Config::default() }.check().is_err());
        let error = Config { early_delay: Duration::from_secs(2), ..Config::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "early_delay in microseconds is 2000000; give at most 1000000");
        assert!(Config { message_bytes_max: 0, ..Config::default() }.check().is_err());
        assert!(Config { early_frames_max: usize::MAX, ..Config::default() }.check().is_err());
        assert!(Config { order_frames_max: usize::MAX, ..Config::default() }.check().is_err());
        assert!(Config { trace_lines_max: usize::MAX, ..Config::default() }.check().is_err());
    }

    #[test]
    fn every_delay_is_told_by_its_name() {
        let text = format!("{:?}", Config::default());
        let fields = text.split([' ', ':', '{']).filter(|word| word.ends_with("_delay"));
        let told = Config::default().time_outs().map(|(name, _)| name);
        assert!(fields.clone().count() > 3 && fields.clone().all(|field| told.contains(&field)), "{text}");
    }
}
