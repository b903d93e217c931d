//! May this user open the device file?

use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Finding, Machine, module::DEVICE};

/// A file's owner and mode.
struct File {
    mode: u32,
    uid: u32,
    gid: u32,
    /// The group's name.
    group: Option<String>,
}

/// Who asks.
struct Who {
    uid: u32,
    groups: Vec<u32>,
    /// The systemd unit that it is in.
    unit: Option<String>,
}

impl File {
    /// Its mode lets them read and write.
    fn admits(&self, who: &Who) -> bool {
        let bits = if who.uid == self.uid {
            self.mode >> 6
        } else if who.groups.contains(&self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        who.uid == 0 || bits & 0o6 == 0o6
    }
}

/// What a refusal means.
fn refused(file: &File, who: &Who) -> Finding {
    let group = file.group.clone().unwrap_or_else(|| file.gid.to_string());
    let unit = who.unit.as_deref().map(|unit| format!(" ({unit})")).unwrap_or_default();
    if file.admits(who) {
        // The mode is not what refuses.
        return Finding::failed(
            format!(
                "{DEVICE} may be opened by this user, but not by this process{unit}: its control group or a security module forbids it (DevicePolicy of a systemd service, a container's list of devices)"
            ),
            "of a systemd service: DeviceAllow=/dev/vgpu rw; of a container: --device /dev/vgpu; with SELinux or AppArmor: see the audit log",
        );
    }
    Finding::failed(
        format!(
            "user {} may not open {DEVICE}: mode {:04o}, owner {}, group {group}",
            who.uid,
            file.mode & 0o7777,
            file.uid
        ),
        format!(
            "install guest-driver/kmod/packaging/60-vgpu.rules in /etc/udev/rules.d (it admits every user; then udevadm trigger /dev/vgpu), or make the user a member of {group} where the group may write, and log in again"
        ),
    )
}

fn who(machine: &Machine) -> Who {
    let mut groups: Vec<u32> =
        rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
    groups.push(rustix::process::getegid().as_raw());
    Who { uid: rustix::process::geteuid().as_raw(), groups, unit: machine.unit() }
}

fn group_name(machine: &Machine, gid: u32) -> Option<String> {
    let list = machine.read("/etc/group")?;
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

/// The step.
pub fn check(machine: &Machine) -> Finding {
    let path = machine.path(DEVICE);
    match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Finding::Ok(format!("this user may open {DEVICE}")),
        Err(Errno::ACCESS | Errno::PERM) => match std::fs::metadata(&path) {
            Ok(data) => {
                let group = group_name(machine, data.gid());
                let file = File { mode: data.mode(), uid: data.uid(), gid: data.gid(), group };
                refused(&file, &who(machine))
            }
            Err(error) => Finding::failed(format!("{DEVICE} cannot be looked at: {error}"), "run as root"),
        },
        // These come from the driver, behind the permissions: the next step says what they mean.
        Err(Errno::AGAIN | Errno::NXIO | Errno::NODEV | Errno::PROTO) => {
            Finding::Ok(format!("this user may open {DEVICE}, though the driver does not let it now"))
        }
        Err(errno) => Finding::failed(
            format!("{DEVICE} cannot be opened: {errno}"),
            "see the kernel's log (dmesg | grep vgpu), and load the module anew",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(mode: u32, uid: u32, groups: &[u32]) -> (String, String) {
        let file = File { mode, uid: 0, gid: 44, group: Some("video".into()) };
        let who = Who { uid, groups: groups.to_vec(), unit: Some("job.service".into()) };
        match refused(&file, &who) {
            Finding::Failed { why, todo } => (why, todo),
            Finding::Ok(said) => panic!("{said}"),
        }
    }

    #[test]
    fn the_mode_refuses_or_something_else_does() {
        let (why, todo) = judged(0o20660, 1000, &[1000]);
        assert!(why.contains("mode 0660") && why.contains("group video"), "{why}");
        assert!(todo.contains("member of video") && todo.contains("60-vgpu.rules"), "{todo}");
        for (mode, uid, groups) in [(0o20666, 1000, &[1000][..]), (0o20660, 1000, &[44]), (0o20600, 0, &[0])]
        {
            let (why, todo) = judged(mode, uid, groups);
            assert!(why.contains("(job.service)") && todo.contains("DeviceAllow"), "{why}");
        }
    }

    #[test]
    fn groups_have_names() {
        let (_folder, machine) =
            crate::doctor::tests::machine(&[("/etc/group", "root:x:0:\nvideo:x:44:me\n")]);
        assert_eq!(group_name(&machine, 44).as_deref(), Some("video"));
        assert_eq!(group_name(&machine, 45), None);
    }
}
