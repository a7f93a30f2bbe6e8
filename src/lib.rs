//! Wadjet: microsecond group communication.

pub mod buf;
pub mod id;
pub mod time;
pub mod transport;
pub mod view;
