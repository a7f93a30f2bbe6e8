//! The oracle: judges what a group did by what was promised (design section 6).
//!
//! It sees only events at the application's interface: who installed which view, who cast, sent, delivered and
//! acknowledged what. It does not depend on the `wadjet` crate, so an error there cannot be shared here. A run is a
//! [`History`], from the simulator or merged from the logs of real processes (one JSON object per line); [`check`]
//! holds it against every property that the stack's [`Promises`] name and returns what it violates.
//!
//! Each property is one small pure function over an index of the history, with a name, a sentence, and the condition
//! under which it applies: [`PROPERTIES`] lists them all. To add one, write the function, add its line to the table,
//! and add to its tests a history for each way of breaking it.
//!
//! ```
//! use wadjet_oracle::{Content, History, Incarnation, Promises, ViewId, What, check};
//!
//! let (a, b) = (Incarnation(1), Incarnation(2));
//! let view = ViewId { counter: 1, coordinator: a };
//! let hello = Content::of(b"hello");
//! let mut history = History::default();
//! for member in [a, b] {
//!     history.push(0, member, What::Start { process: member.0 as u32 });
//!     history.push(0, member, What::View { view, members: vec![a, b], transitional: false });
//! }
//! history.push(10, a, What::CastIssued { sequence: 1, content: hello, view: Some(view), agreed: false });
//! history.push(20, a, What::CastDelivered { origin: a, sequence: 1, content: hello, view });
//! let verdict = check(&history, &Promises::reliable_fifo().quiescent());
//! assert_eq!(verdict[0].property, "completeness", "b never got it");
//! ```

mod history;
mod index;
mod properties;
mod quick;
mod report;

pub use history::{
    Content, Event, History, HistoryError, Incarnation, Measure, MessageName, Traffic, ViewId, What,
};
pub use properties::{PROPERTIES, Promises, Property, check};
pub use quick::{QuickHasher, QuickMap, QuickSet};
pub use report::Violation;
