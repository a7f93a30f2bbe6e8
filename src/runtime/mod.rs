//! The runtime: what turns a sans-IO endpoint into a running member.
//!
//! One thread owns one [`Loop`]: a transport, and the [`Engine`] it drives. The loop reads the clock once per
//! iteration, never blocks unless its [`IdleStrategy`] parks, and notices when this process itself was not running.
//! [`Driver`] is the loop around an [`Endpoint`](crate::endpoint::Endpoint) and an application, with a [`Handle`] for
//! other threads.
//!
//! One iteration:
//!
//! ```text
//! clock ─> reap ─> receive (≤ budget frames) ─> submit, flush ─> busy? ─> poll ─> submit, flush ─> idle
//! ```

mod clock;
mod commands;
mod driver;
mod event_count;
mod idle;
mod looper;
mod pin;
mod sync;
mod window;
mod workers;

pub use clock::Clock;
pub use commands::{CommandOptions, Handle, HandleError, Refusal, ReportError, Request};
pub use driver::{Driver, DriverOptions, Ended, JoinOptions, Member, OpenError, fresh_incarnation};
pub use idle::IdleStrategy;
pub use looper::{Engine, Loop, LoopOptions, LoopStats, RoomFor};
pub use pin::{PinError, cores, pin};
pub use window::{Report, Window};
pub use workers::{Delivered, Order, Turn, WorkerPanicked, Workers, WorkersOptions};
