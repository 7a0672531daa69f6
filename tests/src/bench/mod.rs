//! The parts of `cargo xtask bench`, one module each.
