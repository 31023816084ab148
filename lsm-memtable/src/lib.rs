//! Sorted in-memory tables with one writer and many readers that never wait.
