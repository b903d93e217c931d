//! What of a VM's share may change while it runs: who gets how much of the GPU, and what ends a session or the right to open one.

use std::time::Duration;

use pci_layout::regs;

/// Largest weight.
pub const WEIGHT_MAX: u32 = 100;

/// When a VM is refused new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineRule {
    /// Sessions that fault within [`QuarantineRule::within`]: with more of them the VM is quarantined. 0: never.
    pub faults: u32,
    /// The time in which they are counted.
    pub within: Duration,
    /// How long it lasts; None: until an administrator ends it.
    pub lasts: Option<Duration>,
}

impl Default for QuarantineRule {
    fn default() -> Self {
        Self { faults: 0, within: Duration::from_secs(60), lasts: None }
    }
}

/// One VM's share, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// One of the `PRIORITY_` values of the register block.
    pub priority: u32,
    /// Share of the GPU's time under contention, among VMs of one priority: 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// Device memory that all its processes may have together, in bytes, on each device; None: no limit.
    pub vram_bytes: Option<u64>,
    /// Calls a second, of all its processes together; None: no limit. What comes sooner is delayed.
    pub calls_per_second: Option<u32>,
    /// Frames that wait in a ring and are not carried out yet, at most; None: as many as the ring holds. Whoever sends more waits.
    pub queue_depth: Option<u32>,
    /// A kernel that runs longer ends its session; None: no limit.
    pub kernel_timeout: Option<Duration>,
    /// When it is refused new sessions.
    pub quarantine: QuarantineRule,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            priority: regs::PRIORITY_MEDIUM,
            weight: 10,
            vram_bytes: None,
            calls_per_second: None,
            queue_depth: None,
            kernel_timeout: None,
            quarantine: QuarantineRule::default(),
        }
    }
}

impl Settings {
    /// The first setting that is out of its range, by its name.
    ///
    /// # Errors
    /// That name.
    pub fn check(&self) -> Result<(), &'static str> {
        let wrong = [
            ("priority", self.priority > regs::PRIORITY_HIGH),
            ("weight", !(1..=WEIGHT_MAX).contains(&self.weight)),
            ("vram_bytes", self.vram_bytes == Some(0)),
            ("calls_per_second", self.calls_per_second == Some(0)),
            ("queue_depth", self.queue_depth == Some(0)),
            ("kernel_timeout", self.kernel_timeout.is_some_and(|limit| limit.is_zero())),
            ("quarantine.within", self.quarantine.faults != 0 && self.quarantine.within.is_zero()),
            ("quarantine.lasts", self.quarantine.lasts.is_some_and(|lasts| lasts.is_zero())),
        ];
        wrong.iter().find(|(_, wrong)| *wrong).map_or(Ok(()), |(name, _)| Err(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named() {
        let right = Settings::default();
        assert_eq!(right.check(), Ok(()));
        assert_eq!(Settings { weight: 0, ..right }.check(), Err("weight"));
        assert_eq!(Settings { weight: 101, ..right }.check(), Err("weight"));
        assert_eq!(Settings { vram_bytes: Some(0), ..right }.check(), Err("vram_bytes"));
        assert_eq!(Settings { priority: 3, ..right }.check(), Err("priority"));
    }
}
