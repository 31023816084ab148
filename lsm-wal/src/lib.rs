//! A write-ahead log: append opaque records, make them durable, read them back after a crash.
