//! The daemon's vhost-user side in one process: a front-end that speaks QEMU's part and a guest's driver, against the real
//! connection, rings and memory, with a mediator that only remembers.

// The tests' own small numbers.
#![allow(clippy::cast_possible_truncation)]

mod connections;
mod driver;
mod events;
mod fake;
mod hostile;
mod machine;
mod requests;
mod stopping;
