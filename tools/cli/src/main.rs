//! The `wadjet` command line.
fn main() {}
