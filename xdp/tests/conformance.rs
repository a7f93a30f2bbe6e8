//! The transport keeps the contract of [`wadjet::transport`], on test hosts that each test makes and removes itself.
//! Hosts take root; without, each test says that it is skipped, and in CI it fails.

#[path = "../../tests/conformance/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it holds more promises than those of transports over IP")]
mod conformance;

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use common::{Either, On, small};
use conformance::Bed;
use wadjet::transport::udp::UdpOptions;
use wadjet::view::Address;
use wadjet_hosts::Hosts;
use wadjet_xdp::{Mode, Wake, XdpOptions, XdpTransport};

/// Members on hosts of their own on one bridge.
struct XdpBed {
    hosts: Rc<Hosts>,
    options: XdpOptions,
}

impl XdpBed {
    fn new(options: XdpOptions) -> Option<XdpBed> {
        let hosts = common::hosts(|label| Hosts::up(label, 4))?;
        Some(XdpBed { hosts, options })
    }
}

impl Bed for XdpBed {
    type Transport = On<XdpTransport>;

    fn transport(&mut self, rank: usize) -> On<XdpTransport> {
        common::xdp(&self.hosts, rank + 1, &self.options)
    }

    fn address(&self, rank: usize) -> Address {
        Address(format!("{}:7400", self.hosts.address(rank + 1)))
    }

    fn lent(transport: &On<XdpTransport>) -> usize {
        transport.inner.frames_lent()
    }
}

/// Members on AF_XDP and, every other one, on ordinary sockets.
struct BesideUdp(XdpBed);

impl BesideUdp {
    fn new(options: XdpOptions) -> Option<BesideUdp> {
        XdpBed::new(options).map(BesideUdp)
    }
}

impl Bed for BesideUdp {
    type Transport = Either;

    fn transport(&mut self, rank: usize) -> Either {
        match rank % 2 {
            0 => Either::One(self.0.transport(rank)),
            _ => Either::Other(common::udp(&self.0.hosts, rank + 1, &UdpOptions::default())),
        }
    }

    fn address(&self, rank: usize) -> Address {
        self.0.address(rank)
    }

    fn lent(transport: &Either) -> usize {
        match transport {
            Either::One(ring) => ring.inner.frames_lent(),
            Either::Other(sockets) => sockets.inner.receive_frames_lent(),
        }
    }
}

macro_rules! promises {
    ($name:ident, $bed:expr; $($promise:ident,)+) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $promise() {
                    if let Some(bed) = $bed {
                        conformance::$promise(bed);
                    }
                }
            )+
        }
    };
    ($($name:ident, $bed:expr;)+) => {
        $(promises!($name, $bed;
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
            as_many_frames_may_be_held_as_were_asked_for_while_others_come_and_go,
            waiting_ends_when_a_frame_comes_or_the_time_is_over,
            another_thread_ends_the_wait_and_an_early_wake_is_not_forgotten,
            a_place_that_is_taken_is_refused_in_words_and_its_holder_is_not_disturbed,
            a_view_of_one_member_opens_and_takes_casts,
            views_may_follow_each_other_for_long,
            nothing_more_goes_to_a_member_that_is_excluded_nor_waits_for_it,
            messages_outside_any_view_reach_an_address_before_and_after_a_view,
            a_message_reaches_the_address_it_names_and_nobody_else,
            a_message_too_long_is_dropped_and_counted_and_one_to_nobody_is_lost,
            a_message_from_outside_comes_though_there_are_always_more_frames,
            waiting_ends_when_a_message_comes_from_outside,
            nobody_waits_for_an_excluded_member_and_nothing_is_sent_to_it,
            views_follow_each_other_and_closed_channels_are_ignored,
        );)+
    };
}

fn multicast() -> XdpOptions {
    XdpOptions { multicast: Some(SocketAddrV4::new(Ipv4Addr::new(239, 78, 0, 1), 7401)), ..small() }
}

promises!(
    fan_out, XdpBed::new(small());
    by_multicast, XdpBed::new(multicast());
    whole_frames_only, XdpBed::new(XdpOptions { multi_buffer: false, wake: Wake::Asked, ..small() });
    in_the_driver, XdpBed::new(XdpOptions { mode: Mode::Native, ..small() });
    beside_udp, BesideUdp::new(small());
);
