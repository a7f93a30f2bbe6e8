//! Test hosts for transports that need them, and transports that live on one.
#![allow(dead_code, reason = "each test uses what it needs")]

#[path = "../../../tests/common/either.rs"]
mod either;

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;

use wadjet::buf::Frame;
use wadjet::id::{GroupId, Rank, RankSet};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::{
    Caps, Channel, ChannelId, ChannelOptions, Full, Outside, Received, Transmit, Transport,
    TransportCounters, TransportError,
};
use wadjet::view::{Address, LocalView};
use wadjet_hosts::{Hosts, LabError, label_of_this_process};
use wadjet_xdp::{XdpOptions, XdpTransport};

/// Fresh hosts, or nothing and one line if this user may not make any. Who runs CI may: there it is a failure.
pub(crate) fn hosts(make: impl FnOnce(&str) -> Result<Hosts, LabError>) -> Option<Rc<Hosts>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let label = format!("{}-{}", label_of_this_process("x"), NEXT.fetch_add(1, Ordering::Relaxed));
    match make(&label) {
        Ok(hosts) => Some(Rc::new(hosts)),
        Err(error @ (LabError::NotPermitted { .. } | LabError::NoCommand { .. })) => {
            assert!(std::env::var_os("CI").is_none(), "in CI this must run: {error}");
            #[allow(clippy::print_stderr, reason = "whoever runs the test is to know that it did not run")]
            {
                eprintln!("skipped: {error}");
            }
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Options for tests: little memory, so that many fit a machine at once.
pub(crate) fn small() -> XdpOptions {
    XdpOptions {
        transmit_frames: 2048,
        receive_frames: 1024,
        fill_frames: 512,
        huge_pages: false,
        ..XdpOptions::default()
    }
}

/// A transport that was made on a host, and whose sockets are made there whatever thread-wide namespace the test is in.
pub(crate) struct On<T> {
    pub(crate) inner: T,
    /// A handle that removes nothing: a transport that is forgotten, as if its process were killed, keeps no host.
    hosts: Hosts,
    host: usize,
}

impl<T> On<T> {
    pub(crate) fn new(hosts: &Rc<Hosts>, host: usize, make: impl FnOnce() -> T) -> On<T> {
        let stay = hosts.enter(host).unwrap();
        let inner = make();
        drop(stay);
        On { inner, hosts: hosts.alias(), host }
    }
}

pub(crate) fn xdp(hosts: &Rc<Hosts>, host: usize, options: &XdpOptions) -> On<XdpTransport> {
    On::new(hosts, host, || XdpTransport::new(options.clone()).unwrap())
}

pub(crate) fn udp(hosts: &Rc<Hosts>, host: usize, options: &UdpOptions) -> On<UdpTransport> {
    On::new(hosts, host, || UdpTransport::new(options.clone()).unwrap())
}

impl<T: Transport> Transport for On<T> {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn notes_digest(&self) -> Option<u64> {
        self.inner.notes_digest()
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let _stay = self.hosts.enter(self.host).unwrap();
        self.inner.open(view, options)
    }

    fn open_next(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let _stay = self.hosts.enter(self.host).unwrap();
        self.inner.open_next(view, options)
    }

    fn room_for(&self, members: usize, options: &ChannelOptions) -> Result<(), TransportError> {
        self.inner.room_for(members, options)
    }

    fn close(&mut self, channel: ChannelId) {
        self.inner.close(channel);
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        let _stay = self.hosts.enter(self.host).unwrap();
        self.inner.bind(group, address)
    }

    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]) {
        self.inner.send_outside(group, to, bytes);
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        self.inner.exclude(channel, rank);
    }

    fn intact(&self, channel: ChannelId, frame: &Frame) -> bool {
        self.inner.intact(channel, frame)
    }

    fn prepare(&mut self, options: &ChannelOptions) {
        self.inner.prepare(options);
    }

    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        self.inner.submit(transmit)
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn reap(&mut self) {
        self.inner.reap();
    }

    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        self.inner.receive(budget, sink)
    }

    fn more(&self) -> bool {
        self.inner.more()
    }

    fn busy(&self, channel: ChannelId) -> bool {
        self.inner.busy(channel)
    }

    fn wait(&mut self, timeout: Duration) {
        self.inner.wait(timeout);
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn gone(&self, channel: ChannelId) -> RankSet {
        self.inner.gone(channel)
    }

    fn counters(&self) -> TransportCounters {
        self.inner.counters()
    }
}

/// A member over AF_XDP, or over the kernel's sockets.
pub(crate) type Either = either::Either<On<XdpTransport>, On<UdpTransport>>;
