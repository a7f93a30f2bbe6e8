//! Every limit and time-out, with its unit in its name.

use std::time::Duration;

use crate::id::MEMBERS_MAX;
use crate::stack::spec::Spec;
use crate::time::Millis;
use crate::transport::ChannelOptions;

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
    /// Frames for sends, control messages and retransmission headers, or 16 for each member of the view if those are more. At
    /// the limit sends are refused and control messages are put off.
    pub control_frames: usize,
    /// Frames that are ahead of their turn and may wait for it, of all origins. Beyond it they take the layers.
    pub early_frames_max: usize,
    /// How long they may wait; at most a second. A gap is asked for after this and then the `repair_us` of NAK: what is
    /// ahead of its turn waits here first, and only then NAK is told of the gap. Much more than `repair_us` delays every
    /// repair by that much; zero hands them to NAK at the next poll.
    pub early_delay: Duration,
    /// Accepted casts that may wait for their order. Each origin has an equal share of it, at least one and at most
    /// `window_frames`; FC lets nobody cast more than its share beyond what has been delivered. What comes all the same (orders,
    /// which no credit holds, or where members have unlike shares) is dropped and repaired later. A repaired gap may bring
    /// in a window more.
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
    /// What the regions of one view may take, in bytes: frames of [`frame_bytes_max`](Config::frame_bytes_max) for
    /// own casts, for control messages, and for what is retained of every other member. It bounds how many members a view
    /// may have ([`Config::members_max`]); those beyond are not let in.
    pub region_bytes_max: u64,
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
            region_bytes_max: 4 << 30,
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
    /// A delay is too long.
    #[error("{name} is {}; give at most {}", Millis(*delay), Millis(*most))]
    TooLong {
        /// Which.
        name: &'static str,
        /// What was given.
        delay: Duration,
        /// What would do.
        most: Duration,
    },
    /// The frames that a view needs do not fit.
    #[error(
        "a view of {members} members needs {cast_frames} frames for casts, {control_frames} for control messages and \
         {receive_frames} for what others cast, of {frame_bytes} bytes each: {bytes} bytes, and region_bytes_max is \
         {region_bytes_max}; lower window_frames, waiting_frames_max, control_frames, order_frames_max or \
         frame_bytes_max, or raise region_bytes_max"
    )]
    Regions {
        /// Members of the view.
        members: usize,
        /// Frames of own casts: the window and those that wait.
        cast_frames: usize,
        /// Frames of control messages.
        control_frames: usize,
        /// Frames of others: a window of each, those ahead of their turn and those that wait for their order.
        receive_frames: usize,
        /// Bytes of each.
        frame_bytes: usize,
        /// What they come to.
        bytes: u64,
        /// [`Config::region_bytes_max`].
        region_bytes_max: u64,
    },
}

/// In a view of a hundred members, whose flush vectors are two frames, 8 for each do, but reliable messages are put off for want
/// of frames; with 12 none is. With 5 the coordinator is not heard, and excluded.
const CONTROL_FRAMES_EACH: usize = 16;

/// Short gossip is 16 bits and compared as a signed difference: windows must stay below half of that.
pub const WINDOW_FRAMES_MAX: u64 = 1 << 14;

/// No view has more frames of one member, whatever limit a member has set itself.
pub const FRAME_NUMBERS_MAX: u64 = 1 << 40;

/// Longer than NAK's longest `repair_us` makes no sense: repairs would wait for it. Nor does it to put anything off for so
/// long for which others wait.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Channels of past views stay open no longer.
const LINGER_DELAY_MAX: Duration = Duration::from_secs(60);

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

    /// The defaults, with room for the windows that the layers of `stack` ask for by their parameter `window`. Layers that ask for
    /// none take what there is room for, so that theirs may be wider, too. All members must have the same windows; those
    /// that name the same stack and are configured by this do.
    pub fn for_stack(stack: &str) -> Config {
        let mut config = Config::default();
        // What is no stack is refused in words where it is put together.
        let layers = Spec::parse(stack).map_or(Vec::new(), |spec| spec.layers);
        for layer in layers {
            let asked = layer.parameters.pairs().iter().filter(|(name, _)| name == "window");
            for frames in asked.filter_map(|(_, value)| value.parse::<u64>().ok()) {
                // Windows of sends are half of the others, and half of the reserve for control messages.
                let sends = layer.name == "UNICAST";
                let room = frames.min(WINDOW_FRAMES_MAX) * if sends { 2 } else { 1 };
                let room = room.min(WINDOW_FRAMES_MAX);
                config.window_frames = config.window_frames.max(room);
                if sends {
                    config.control_frames = config.control_frames.max(room as usize);
                }
            }
        }
        config
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
        for (name, delay) in self.time_outs() {
            let most = if name == "linger_delay" { LINGER_DELAY_MAX } else { DELAY_MAX };
            if delay > most {
                return Err(ConfigError::TooLong { name, delay, most });
            }
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
        // A group is of two at the least.
        self.check_regions(2)
    }

    /// What to ask of a transport for a view of `members` members. Each region is a sum over its holders.
    pub(crate) fn channel_options(&self, members: usize) -> ChannelOptions {
        let window = self.window_frames as usize;
        let others = members.saturating_sub(1);
        ChannelOptions {
            // Unacknowledged + waiting above the stack + being filled + own copies on their way up.
            cast_frames: window + self.waiting_frames_max + 2,
            control_frames: self.control_frames_of(members),
            // Retained until stable, per origin + ahead of their turn + held for their order.
            receive_frames: window * others + self.early_frames_max + self.order_share(members) * others,
            frame_bytes: self.frame_bytes_max,
            huge_pages: self.huge_pages,
        }
    }

    /// Frames of the control region in a view of `members` members. Who leads a view change says something to each of the
    /// others, keeps it until it is acknowledged, and has to be heard meanwhile.
    pub(crate) fn control_frames_of(&self, members: usize) -> usize {
        self.control_frames.max(CONTROL_FRAMES_EACH * members)
    }

    /// Whether the regions of a view of `members` members fit [`Config::region_bytes_max`].
    pub(crate) fn check_regions(&self, members: usize) -> Result<(), ConfigError> {
        let ChannelOptions { cast_frames, control_frames, receive_frames, frame_bytes, .. } =
            self.channel_options(members);
        let frames = cast_frames + control_frames + receive_frames;
        let bytes = frames as u64 * frame_bytes as u64;
        let region_bytes_max = self.region_bytes_max;
        if bytes <= region_bytes_max {
            return Ok(());
        }
        let too_much = ConfigError::Regions {
            members,
            cast_frames,
            control_frames,
            receive_frames,
            frame_bytes,
            bytes,
            region_bytes_max,
        };
        Err(too_much)
    }

    /// How many members a view may have: as many as [`Config::region_bytes_max`] has room for, and no more than
    /// [`MEMBERS_MAX`]. The other values must be such as [`Config::check`] takes.
    pub fn members_max(&self) -> usize {
        (1..=MEMBERS_MAX).rev().find(|members| self.check_regions(*members).is_ok()).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_the_windows_that_a_stack_names() {
        let windows = |stack: &str| {
            let config = Config::for_stack(stack);
            config.check().unwrap();
            (config.window_frames, config.control_frames)
        };
        assert_eq!(windows("FC:UNICAST:NAK:COM"), (1024, 512));
        assert_eq!(windows("FC(window=64):UNICAST:NAK(window=512,repair_us=50):COM"), (1024, 512));
        assert_eq!(windows("FC(window=2048):UNICAST:NAK(window=4096):COM"), (4096, 512));
        assert_eq!(windows("FC:UNICAST(window=2048):NAK:COM"), (4096, 4096));
        assert_eq!(windows("FC:UNICAST:NAK(window=99999999999):COM"), (WINDOW_FRAMES_MAX, 512));
        assert_eq!(windows("FC(window=2:"), (1024, 512));
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        assert_eq!(Config::default().check(), Ok(()));
        let error = Config { window_frames: 1 << 15, ..Config::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "window_frames is 32768; give 1 to 16384");
        assert!(Config { control_frames: 0, ..Config::default() }.check().is_err());
        let error = Config { early_delay: Duration::from_secs(2), ..Config::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "early_delay is 2000 ms; give at most 1000 ms");
        assert!(Config { message_bytes_max: 0, ..Config::default() }.check().is_err());
        assert!(Config { early_frames_max: usize::MAX, ..Config::default() }.check().is_err());
        assert!(Config { order_frames_max: usize::MAX, ..Config::default() }.check().is_err());
        assert!(Config { trace_lines_max: usize::MAX, ..Config::default() }.check().is_err());
    }

    #[test]
    fn regions_that_do_not_fit_are_refused_with_their_sum() {
        let wide = Config { window_frames: 1 << 14, frame_bytes_max: 65_536, ..Config::default() };
        assert_eq!(wide.check(), Ok(()));
        let error = Config { waiting_frames_max: 1 << 16, ..wide.clone() }.check().unwrap_err();
        let sum = ((1 << 14) + (1 << 16) + 2 + 512 + ((1 << 14) + 64 + 2048)) * 65_536_u64;
        let text = error.to_string();
        assert!(
            text.starts_with("a view of 2 members needs 81922 frames for casts, 512 for control messages"),
            "{text}"
        );
        assert!(text.contains(&format!(": {sum} bytes, and region_bytes_max is 4294967296;")), "{text}");
    }

    #[test]
    fn a_view_has_as_many_members_as_its_regions_have_room_for() {
        assert_eq!(Config::default().members_max(), MEMBERS_MAX);
        let least = Config { region_bytes_max: 0, ..Config::default() };
        let Err(ConfigError::Regions { bytes, .. }) = least.check_regions(5) else { panic!("nothing fits") };
        assert_eq!(Config { region_bytes_max: bytes, ..Config::default() }.members_max(), 5);
        assert_eq!(Config { region_bytes_max: bytes - 1, ..Config::default() }.members_max(), 4);
    }

    #[test]
    fn every_delay_is_told_by_its_name() {
        let text = format!("{:?}", Config::default());
        let fields = text.split([' ', ':', '{']).filter(|word| word.ends_with("_delay"));
        let told = Config::default().time_outs().map(|(name, _)| name);
        assert!(fields.clone().count() > 3 && fields.clone().all(|field| told.contains(&field)), "{text}");
    }
}
