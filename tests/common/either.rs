//! A transport that is one of two, so that members over either stand in one list and are in one group.
#![allow(dead_code, unreachable_pub)]

use std::task::Waker;
use std::time::Duration;

use wadjet::id::{GroupId, Rank, RankSet};
use wadjet::transport::{
    Caps, Channel, ChannelId, ChannelOptions, Full, Outside, Received, Transmit, Transport,
    TransportCounters, TransportError,
};
use wadjet::view::{Address, LocalView};

#[allow(clippy::large_enum_variant, reason = "there are a handful of them")]
pub enum Either<A, B> {
    One(A),
    Other(B),
}

macro_rules! either {
    ($self:ident, $transport:ident => $what:expr) => {
        match $self {
            Either::One($transport) => $what,
            Either::Other($transport) => $what,
        }
    };
}

impl<A: Transport, B: Transport> Transport for Either<A, B> {
    fn caps(&self) -> Caps {
        either!(self, transport => transport.caps())
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        either!(self, transport => transport.open(view, options))
    }

    fn open_next(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        either!(self, transport => transport.open_next(view, options))
    }

    fn room_for(&self, members: usize, options: &ChannelOptions) -> Result<(), TransportError> {
        either!(self, transport => transport.room_for(members, options))
    }

    fn close(&mut self, channel: ChannelId) {
        either!(self, transport => transport.close(channel));
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        either!(self, transport => transport.bind(group, address))
    }

    fn discovers(&self) -> Result<(), &'static str> {
        either!(self, transport => transport.discovers())
    }

    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]) {
        either!(self, transport => transport.send_outside(group, to, bytes));
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        either!(self, transport => transport.exclude(channel, rank));
    }

    fn prepare(&mut self, options: &ChannelOptions) {
        either!(self, transport => transport.prepare(options));
    }

    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        either!(self, transport => transport.submit(transmit))
    }

    fn flush(&mut self) {
        either!(self, transport => transport.flush());
    }

    fn reap(&mut self) {
        either!(self, transport => transport.reap());
    }

    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        either!(self, transport => transport.receive(budget, sink))
    }

    fn more(&self) -> bool {
        either!(self, transport => transport.more())
    }

    fn busy(&self, channel: ChannelId) -> bool {
        either!(self, transport => transport.busy(channel))
    }

    fn wait(&mut self, timeout: Duration) {
        either!(self, transport => transport.wait(timeout));
    }

    fn waker(&self) -> Waker {
        either!(self, transport => transport.waker())
    }

    fn gone(&self, channel: ChannelId) -> RankSet {
        either!(self, transport => transport.gone(channel))
    }

    fn starved(&self, channel: ChannelId) -> RankSet {
        either!(self, transport => transport.starved(channel))
    }

    fn parted(&self, channel: ChannelId) -> RankSet {
        either!(self, transport => transport.parted(channel))
    }

    fn counters(&self) -> TransportCounters {
        either!(self, transport => transport.counters())
    }
}
