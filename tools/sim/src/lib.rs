//! wadjet-sim
