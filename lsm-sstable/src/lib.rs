//! Immutable sorted table files: write once, find and scan fast, prove every byte.
