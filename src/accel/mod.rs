//! The Protocol Accelerator: the fast path, derived from the layers (design D1 to D4).
//!
//! Layers declare their common case ([`case`]); the compiler merges the declarations of a stack into one plan per kind
//! of traffic (`plan`); the executor runs a plan with one look-up, one guard, a few compares and counter bumps
//! (`execute`). Whatever is unusual is expanded and handed to the layers. The `shadow` repeats by layers what a plan
//! did and compares. Nothing here knows a layer by name.
//!
//! After van Renesse, "Masking the Overhead of Protocol Layering" (SIGCOMM 1996), and Hayden, "The Ensemble System"
//! (1998).

#[cfg_attr(not(feature = "laboratory"), doc(hidden))]
pub mod broken;
pub mod case;
pub mod cookie;
pub(crate) mod effects;
pub(crate) mod execute;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod shadow;
