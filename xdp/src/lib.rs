//! Wadjet over AF_XDP: UDP datagrams that go past the kernel's network stack, by rings shared with the driver.
//!
//! [`XdpTransport`] keeps the contract of [`wadjet::transport`] and passes its conformance suite. Frames on the wire are
//! ordinary UDP datagrams between `ip:port` addresses: switches and routers forward them, `tcpdump` on the other side
//! reads them, and a member on AF_XDP works in one group with members on ordinary sockets.
//!
//! What goes past the kernel, and what does not:
//!
//! - The XDP program gives the socket what is addressed to this process ([`XdpTransport::steered`] says how much that
//!   was) and passes everything else on. What is addressed to it but does not fit a frame (runs that a sender leaves to
//!   be segmented arrive as one over virtual interfaces), or comes in fragments, reaches it all the same, by an
//!   ordinary socket that is bound to the same address.
//! - Frames leave with their headers in their own headroom. Who is where is read from the kernel's table of
//!   neighbours, never waited for: to a neighbour that is not known yet, to another interface, or to this very host,
//!   frames go by the ordinary socket; so does one a second to each, which keeps the table fresh.
//!
//! It takes root, or CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF. One process may use it on an interface.
//!
//! A member is embedded as over any other transport; the interface is that of its address:
//!
//! ```no_run
//! use wadjet::group::{Application, Delivery, Event, Group};
//! use wadjet::layers::DEFAULT_STACK;
//! use wadjet::runtime::fresh_incarnation;
//! use wadjet::{Address, Config, Driver, DriverOptions, Endpoint, GroupId, JoinOptions, Neighbours};
//! use wadjet_xdp::{XdpOptions, XdpTransport};
//!
//! struct Printer;
//!
//! impl Application for Printer {
//!     fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
//!         println!("{}: {} messages", delivery.origin(), delivery.len());
//!     }
//!
//!     fn event(&mut self, _event: &Event, _group: &mut Group<'_>) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = XdpTransport::new(XdpOptions::default())?;
//! let endpoint = Endpoint::new(Config::default(), fresh_incarnation())?;
//! // A core of its own: it spins there.
//! let options = DriverOptions { core: Some(2), ..DriverOptions::default() };
//! let mut driver = Driver::new(endpoint, Printer, transport, options);
//! let group = driver.join(JoinOptions {
//!     group: GroupId::named("prices"),
//!     spec: DEFAULT_STACK.to_owned(),
//!     address: Address("10.0.0.1:7400".to_owned()),
//!     neighbours: Neighbours { contacts: vec![Address("10.0.0.2:7400".to_owned())], discover: false },
//! })?;
//! loop {
//!     driver.run_once();
//!     // What flow control does not take now is not cast.
//!     let _ = driver.group(group).cast(b"tick");
//! }
//! # }
//! ```
#![allow(unsafe_code)]

mod attach;
mod bank;
mod depth;
mod header;
mod interface;
mod line;
mod neighbour;
mod options;
mod post;
mod program;
mod ring;
mod socket;
mod stoppage;
mod sys;
mod transport;

pub use options::{Mode, Wake, XdpOptions};
pub use program::SteerCounters;
pub use transport::XdpTransport;
