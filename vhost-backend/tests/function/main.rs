//! The daemon's vfio-user side in one process: a client that speaks QEMU's part and a guest's driver, against the real server, function,
//! rings and memory, with a mediator that only remembers.

// The tests' own small numbers.
#![allow(clippy::cast_possible_truncation)]

#[path = "../vm/driver.rs"]
#[allow(dead_code, reason = "the driver has what the vhost-user tests need as well")]
mod driver;
#[path = "../vm/fake.rs"]
#[allow(dead_code, reason = "so has the mediator")]
mod fake;
mod hostile;
mod machine;
mod mailbox;
mod queues;
mod wire;
