//! What happens to programs, guests and daemons when a VM is paused, reset or replaced, and when a daemon ends. The table
//! in `docs/attachments.md` says the same in words.
//!
//! Every test runs on both attachments: `vhost-user-fs-pci` on the older QEMU, the generic device on the newer.

mod scene;

mod daemon_end;
mod doctor;
mod messages;
mod module;
mod pause;
mod reattach;
mod reset;
mod starting;
mod successor;
