//! wadjet-bench
