//! The `lsm` command.

fn main() {}
