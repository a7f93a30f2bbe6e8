//! Every transport keeps the contract of [`wadjet::transport`]. To add one: a [`Bed`] and a line of `conformance!`.

mod conformance;
#[path = "common/mixed.rs"]
mod mixed;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use conformance::Bed;
use mixed::Mixed;
use wadjet::transport::fault::{FaultOptions, Faulty};
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{MulticastOptions, UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::view::Address;

struct MemoryBed(Hub);

impl MemoryBed {
    fn new() -> MemoryBed {
        MemoryBed(Hub::new(HubOptions { queue_frames_max: 128, ..HubOptions::default() }))
    }
}

impl Bed for MemoryBed {
    type Transport = MemoryTransport;

    fn transport(&mut self, _rank: usize) -> MemoryTransport {
        self.0.transport()
    }

    fn address(&self, rank: usize) -> Address {
        Address(format!("member {rank}"))
    }

    fn lent(transport: &MemoryTransport) -> usize {
        transport.joined_frames_lent()
    }
}

/// Members on loopback addresses of their own, so that tests and processes that run at once do not meet.
struct UdpBed {
    options: UdpOptions,
    network: Ipv4Addr,
}

impl UdpBed {
    fn new(options: UdpOptions) -> UdpBed {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let (mine, block) = (1 + process % 250, (process / 250 + next / 31) % 256);
        let network = Ipv4Addr::new(127, mine as u8, block as u8, (next % 31 * 8) as u8);
        UdpBed { options, network }
    }

    fn fan_out() -> UdpBed {
        UdpBed::new(UdpOptions::default())
    }

    fn one_by_one() -> UdpBed {
        UdpBed::new(UdpOptions { segmentation: false, coalescing: false, ..UdpOptions::default() })
    }

    fn multicast() -> UdpBed {
        let mut bed = UdpBed::fan_out();
        let [_, mine, block, host] = bed.network.octets();
        let group = SocketAddrV4::new(Ipv4Addr::new(239, mine, block, host), 7401);
        bed.options.multicast = Some(MulticastOptions::to(group));
        bed
    }
}

impl Bed for UdpBed {
    type Transport = UdpTransport;

    fn transport(&mut self, _rank: usize) -> UdpTransport {
        UdpTransport::new(self.options.clone()).unwrap()
    }

    fn address(&self, rank: usize) -> Address {
        let [a, b, c, d] = self.network.octets();
        Address(format!("{a}.{b}.{c}.{}:7400", d + 1 + rank as u8))
    }

    fn lent(transport: &UdpTransport) -> usize {
        transport.receive_frames_lent()
    }
}

/// The same over a ring.
struct UringBed(UdpBed);

impl Bed for UringBed {
    type Transport = UringTransport;

    fn transport(&mut self, _rank: usize) -> UringTransport {
        UringTransport::new(UringOptions { udp: self.0.options.clone() }).unwrap()
    }

    fn address(&self, rank: usize) -> Address {
        self.0.address(rank)
    }

    fn lent(transport: &UringTransport) -> usize {
        transport.receive_frames_lent()
    }
}

/// Half of the members over system calls of their own, half over rings.
struct MixedBed(UdpBed);

impl Bed for MixedBed {
    type Transport = Mixed;

    fn transport(&mut self, rank: usize) -> Mixed {
        Mixed::of(rank, &self.0.options)
    }

    fn address(&self, rank: usize) -> Address {
        self.0.address(rank)
    }

    fn lent(transport: &Mixed) -> usize {
        transport.receive_frames_lent()
    }
}

/// Members with a directory of their own for their segments.
struct ShmBed {
    directory: PathBuf,
}

impl ShmBed {
    fn new() -> ShmBed {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conformance-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = PathBuf::from("/dev/shm").join(name);
        std::fs::create_dir(&directory).unwrap();
        ShmBed { directory }
    }
}

impl Bed for ShmBed {
    type Transport = Shm;

    fn transport(&mut self, _rank: usize) -> Shm {
        Shm::new(ShmOptions { directory: self.directory.clone() })
    }

    fn address(&self, rank: usize) -> Address {
        Address(format!("member {rank}"))
    }

    fn lent(transport: &Shm) -> usize {
        transport.frames_held()
    }
}

impl Drop for ShmBed {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Another bed's transports behind the wrapper that injects faults, without any: it must keep every promise itself.
struct FaultyBed<B>(B);

impl<B: Bed> Bed for FaultyBed<B> {
    type Transport = Faulty<B::Transport>;

    fn transport(&mut self, rank: usize) -> Faulty<B::Transport> {
        Faulty::new(self.0.transport(rank), FaultOptions::default())
    }

    fn address(&self, rank: usize) -> Address {
        self.0.address(rank)
    }

    fn lent(transport: &Faulty<B::Transport>) -> usize {
        B::lent(transport.inner())
    }
}

conformance!(faulty_memory, FaultyBed(MemoryBed::new()));
conformance!(faulty_udp, FaultyBed(UdpBed::fan_out()));
conformance!(memory, MemoryBed::new());
conformance!(udp_fan_out, UdpBed::fan_out());
conformance!(udp_one_by_one, UdpBed::one_by_one());
conformance!(udp_multicast, UdpBed::multicast());
conformance!(uring_fan_out, UringBed(UdpBed::fan_out()));
conformance!(uring_one_by_one, UringBed(UdpBed::one_by_one()));
conformance!(uring_multicast, UringBed(UdpBed::multicast()));
conformance!(udp_and_uring, MixedBed(UdpBed::fan_out()));
conformance!(udp_and_uring_multicast, MixedBed(UdpBed::multicast()));
conformance!(faulty_uring, FaultyBed(UringBed(UdpBed::fan_out())));

// Not among them: who is bound nowhere has no socket to send by, discovery is a multicast address that other groups may
// share, and letters come by the newest channel while there is one.
macro_rules! live_groups {
    ($($name:ident, $bed:expr;)+) => {
        $(conformance!($name, $bed;
            a_view_of_one_member_opens_and_takes_casts,
            views_may_follow_each_other_for_long,
            nothing_more_goes_to_a_member_that_is_excluded_nor_waits_for_it,
            messages_outside_any_view_reach_an_address_before_and_after_a_view,
            a_message_reaches_the_address_it_names_and_nobody_else,
            a_message_too_long_is_dropped_and_counted_and_one_to_nobody_is_lost,
            an_address_is_held_by_one_process_until_it_lets_go,
            a_message_from_outside_comes_though_there_are_always_more_frames,
            waiting_ends_when_a_message_comes_from_outside,
            nobody_waits_for_an_excluded_member_and_nothing_is_sent_to_it,
            views_follow_each_other_and_closed_channels_are_ignored,
        );)+
    };
}

live_groups!(
    udp_fan_out_live, UdpBed::fan_out();
    udp_one_by_one_live, UdpBed::one_by_one();
    udp_multicast_live, UdpBed::multicast();
    faulty_udp_live, FaultyBed(UdpBed::fan_out());
    udp_and_uring_live, MixedBed(UdpBed::fan_out());
    uring_fan_out_live, UringBed(UdpBed::fan_out());
    uring_one_by_one_live, UringBed(UdpBed::one_by_one());
    uring_multicast_live, UringBed(UdpBed::multicast());
);

// All but one: on shared memory the oldest frame that anybody holds keeps the sender's ring from going round, so frames
// may be held, as many as were asked for, but not for ever while others come and go. `tests/shm.rs` shows that the
// sender then waits and loses nothing.
conformance!(shm, ShmBed::new();
    everything_arrives_once_in_order_and_unchanged,
    frames_of_every_size_arrive_unchanged,
    a_frame_that_is_too_long_is_dropped_and_counted_and_the_next_one_goes,
    everybody_named_gets_the_frame_and_nobody_else,
    a_head_and_a_retained_body_arrive_as_one_frame,
    a_batch_may_be_as_long_as_the_region,
    back_pressure_refuses_whole_frames_and_loses_none,
    a_closed_channel_gives_everything_back_and_the_next_view_opens,
    a_dead_member_disturbs_nobody_and_its_frames_stay_readable,
    the_receive_budget_is_kept_and_nothing_is_skipped,
    a_flooded_channel_leaves_the_others_their_turn,
    a_flood_of_sends_leaves_casts_their_turn,
    waiting_ends_when_a_frame_comes_or_the_time_is_over,
    another_thread_ends_the_wait_and_an_early_wake_is_not_forgotten,
    a_place_that_is_taken_is_refused_in_words_and_its_holder_is_not_disturbed,
);

conformance_live!(memory_live, MemoryBed::new());
conformance_live!(faulty_memory_live, FaultyBed(MemoryBed::new()));
conformance_live!(shm_live, ShmBed::new());
