//! The totals line: what was done so far, for people and for programs that read the log.

use std::fmt;

use vgpu_device::CountersSnapshot;

/// What the workers have done, all sessions of the daemon's life together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct WorkTotals {
    /// CUDA calls carried out.
    pub calls: u64,
    /// Calls of them whose answer the guest has waited for.
    pub replies: u64,
    /// Times that a ring's thread has gone to sleep.
    pub parks: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions closed.
    pub sessions_closed: u64,
    /// Sessions that died.
    pub sessions_died: u64,
    /// Posted calls that failed.
    pub posted_errors: u64,
    /// Bytes moved through staging buffers.
    pub bytes_staged: u64,
    /// Milliseconds for which devices have had unfinished work, sessions and devices added up.
    pub gpu_ms: u64,
    /// Milliseconds for which calls have waited for their VM's turn on a device.
    pub turn_wait_ms: u64,
}

/// All totals; its `Display` is one line: `calls processed: N; name=value …`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// The workers'.
    pub work: WorkTotals,
    /// The device's.
    pub device: CountersSnapshot,
    /// Sessions open now.
    pub sessions_open: u32,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, device, sessions_open } = self;
        write!(f, "calls processed: {}", work.calls)?;
        let values = [
            ("sessions_open", u64::from(*sessions_open)),
            ("sessions_opened", work.sessions_opened),
            ("sessions_closed", work.sessions_closed),
            ("sessions_died", work.sessions_died),
            ("posted_errors", work.posted_errors),
            ("bytes_staged", work.bytes_staged),
            ("gpu_ms", work.gpu_ms),
            ("turn_wait_ms", work.turn_wait_ms),
            ("replies", work.replies),
            ("parks", work.parks),
            ("requests", device.requests),
            ("request_errors", device.errors),
            ("kicks", device.kicks),
            ("session_kicks", device.session_kicks),
            ("wakes", device.wakes),
            ("events", device.events),
            ("resets", device.resets),
        ];
        let mut separator = "; ";
        for (name, value) in values {
            write!(f, "{separator}{name}={value}")?;
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_begins_with_the_calls_and_goes_on_with_pairs() {
        let totals = Totals { work: WorkTotals { calls: 42, ..Default::default() }, ..Default::default() };
        let line = totals.to_string();
        assert!(line.starts_with("calls processed: 42; sessions_open=0 sessions_opened=0 "), "{line}");
    }
}
