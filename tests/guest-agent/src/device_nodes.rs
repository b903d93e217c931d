//! Permissions of device nodes, in place of udev.
//!
//! A real system has a udev rule that opens `/dev/vgpu` to its users. The test guest has no udev, so the agent applies the few
//! rules in a file (`name mode`, the mode in octal) to the nodes that are there and to those that the kernel announces later.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The kernel's own announcements, before udev's.
const KERNEL_GROUP: u32 = 1;

/// The rules, and the socket that the kernel announces new nodes on.
#[derive(Clone)]
pub(crate) struct DeviceNodes(Arc<Mutex<Inner>>);

struct Inner {
    announcements: Arc<OwnedFd>,
    modes: HashMap<String, u32>,
}

impl DeviceNodes {
    /// Applies the rules now, and from a thread of its own whenever a node appears.
    pub(crate) fn watch(rules: &Path) -> Result<Self> {
        let text = fs::read_to_string(rules).with_context(|| format!("cannot read {}", rules.display()))?;
        let mut modes = HashMap::new();
        for line in text.lines() {
            let (name, mode) = line.split_once(' ').with_context(|| format!("no rule: {line}"))?;
            modes.insert(
                name.to_owned(),
                u32::from_str_radix(mode, 8).with_context(|| format!("no rule: {line}"))?,
            );
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).context("cannot listen to the kernel")?;
        for (name, mode) in &modes {
            apply(name, *mode);
        }
        let announcements = Arc::new(socket);
        let nodes = Self(Arc::new(Mutex::new(Inner { announcements: Arc::clone(&announcements), modes })));
        let watcher = nodes.clone();
        std::thread::spawn(move || {
            loop {
                let mut fds = [PollFd::new(&*announcements, PollFlags::IN)];
                if poll(&mut fds, None).is_ok() {
                    watcher.settle();
                }
            }
        });
        Ok(nodes)
    }

    /// Carries out every announcement that has come so far. The kernel queues one before the `insmod` that caused it
    /// returns, so a command started after this finds its node usable.
    pub(crate) fn settle(&self) {
        let Ok(inner) = self.0.lock() else { return };
        let mut message = [0; 8192];
        while let Ok((length, _)) = recv(&*inner.announcements, &mut message, RecvFlags::empty()) {
            let fields = message.get(..length).unwrap_or_default().split(|byte| *byte == 0);
            let fields: Vec<_> = fields.filter_map(|field| std::str::from_utf8(field).ok()).collect();
            let name = fields.iter().find_map(|field| field.strip_prefix("DEVNAME="));
            if let Some((name, mode)) = name.and_then(|name| inner.modes.get_key_value(name))
                && fields.contains(&"ACTION=add")
            {
                apply(name, *mode);
            }
        }
    }
}

fn apply(name: &str, mode: u32) {
    let node = Path::new("/dev").join(name);
    match fs::set_permissions(&node, fs::Permissions::from_mode(mode)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => eprintln!("{}: {error}", node.display()),
        _ => {}
    }
}
