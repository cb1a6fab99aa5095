//! One binary for all integration tests. Read `journey` first.
