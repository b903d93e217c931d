//! Which devices may access a mapping, and how: what cuMemSetAccess has said of each.

use crate::host::Access;
use crate::info::DEVICES_MAX;

/// CU_MEM_ACCESS_FLAGS_PROT_READ and …_READWRITE.
pub const ACCESS_READ: i32 = 1;
/// See [`ACCESS_READ`].
pub const ACCESS_READ_WRITE: i32 = 3;

/// CUmemAccess_flags by device, two bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceAccess(u128);

const _: () = assert!(DEVICES_MAX * 2 <= u128::BITS as usize);
/// The low bit of every device.
const READ: u128 = u128::MAX / 3;

impl DeviceAccess {
    /// No device may access it.
    pub const NONE: DeviceAccess = DeviceAccess(0);

    fn shift(device: i32) -> Option<u32> {
        u32::try_from(device).ok().and_then(|d| d.checked_mul(2)).filter(|shift| *shift < u128::BITS)
    }

    /// With a device's flags set to these. Flags that are none, and devices that cannot be, give no access.
    #[must_use]
    pub fn with(self, device: i32, flags: i32) -> Self {
        let Some(shift) = Self::shift(device) else { return self };
        let bits = match flags {
            ACCESS_READ => 1u128,
            ACCESS_READ_WRITE => 3,
            _ => 0,
        };
        DeviceAccess(self.0 & !(3 << shift) | bits << shift)
    }

    /// A device's flags.
    #[must_use]
    pub fn of(self, device: i32) -> i32 {
        match Self::shift(device).map(|shift| self.0 >> shift & 3) {
            Some(1) => ACCESS_READ,
            Some(3) => ACCESS_READ_WRITE,
            _ => 0,
        }
    }

    /// A device may access it so.
    #[must_use]
    pub fn allows(self, device: i32, access: Access) -> bool {
        match access {
            Access::Read => self.of(device) != 0,
            Access::Write => self.of(device) == ACCESS_READ_WRITE,
        }
    }

    /// Some device may access it so.
    #[must_use]
    pub fn allows_any(self, access: Access) -> bool {
        match access {
            Access::Read => self.0 & READ != 0,
            Access::Write => self.0 >> 1 & READ != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_its_own_flags() {
        let both = DeviceAccess::NONE.with(0, ACCESS_READ_WRITE).with(1, ACCESS_READ);
        assert_eq!((both.of(0), both.of(1), both.of(2)), (ACCESS_READ_WRITE, ACCESS_READ, 0));
        assert!(
            both.allows(1, Access::Read) && !both.allows(1, Access::Write) && both.allows_any(Access::Write)
        );
        let read = both.with(0, 0);
        assert!(
            !read.allows(0, Access::Read) && read.allows_any(Access::Read) && !read.allows_any(Access::Write)
        );
        assert_eq!(read.with(1, 0), DeviceAccess::NONE);
        assert_eq!(DeviceAccess::NONE.with(63, ACCESS_READ_WRITE).of(63), ACCESS_READ_WRITE);
    }

    #[test]
    fn what_is_no_device_and_no_flag_gives_nothing() {
        for (device, flags) in [(-1, 3), (64, 3), (i32::MAX, 3), (i32::MIN, 1), (0, 2), (0, 4), (0, -1)] {
            assert_eq!(DeviceAccess::NONE.with(device, flags), DeviceAccess::NONE, "{device} {flags}");
            assert_eq!(DeviceAccess::NONE.with(0, 3).of(device.max(64)), 0);
        }
    }
}
