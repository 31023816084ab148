//! Side-by-side comparison of the engine with its peers.

fn main() {}
