//! Stacks: layers composed at run time, and the plans compiled from them.
//!
//! - [`spec`] names a stack, [`registry`] knows the layers, [`property`] says what each needs and gives;
//! - [`layer`] is the interface of a protocol, [`event`] what travels between layers, [`notices`] which of it a layer looks
//!   at, [`build`] what a layer registers;
//! - [`turns`] is how members take turns in casting, [`script`] how one of them orders the casts of all, [`service`] when
//!   what is in order goes;
//! - [`slots`] hold every variable that ordinary messages touch;
//! - [`backoff`] says when to do a thing again;
//! - `engine` is the slow path, `post` what follows from ordinary messages some time after them, `run` joins it with the plans of `accel`, [`explain`] prints both.

pub mod backoff;
pub mod build;
pub(crate) mod complaints;
pub(crate) mod core;
pub(crate) mod engine;
pub mod event;
pub mod explain;
pub(crate) mod gossip;
pub(crate) mod identify;
pub mod layer;
pub mod notices;
pub(crate) mod order;
pub(crate) mod post;
pub mod property;
pub mod registry;
pub mod retention;
pub(crate) mod run;
pub mod script;
pub mod service;
pub mod slots;
pub mod spec;
pub(crate) mod timers;
pub mod turns;
