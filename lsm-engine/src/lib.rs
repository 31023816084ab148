//! An embedded, ordered, durable key-value store: a log-structured merge engine.
