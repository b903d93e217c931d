//! The local front over a real socket, with a mediator that only remembers.

// The tests' own small numbers.
#![allow(clippy::cast_possible_truncation)]

mod fake;
mod process;
mod sessions;
