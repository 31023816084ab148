//! Compaction policies as pure functions, the garbage rules of a merge, and a simulator.
