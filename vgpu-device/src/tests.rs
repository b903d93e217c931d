//! The device in front of a fake that remembers what it was asked and answers when the test says so.

// The tests' own small numbers.
#![allow(clippy::cast_possible_truncation)]

mod control;
mod events;
mod fake;
mod life;
mod mailbox;
mod parser;
mod registers;
