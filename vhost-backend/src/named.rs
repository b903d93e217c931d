//! Settings by their names, as people write them: on the command line, in the host's file and in `vgpuctl set`. One reading for all three.

use std::time::Duration;

use mediator::{QuarantineRule, Settings, WEIGHT_MAX};
use pci_layout::regs;

/// Says that a limit is none.
pub const NONE: &str = "none";

/// Names of the priorities, by their numbers.
const PRIORITIES: [(&str, u32); 3] =
    [("low", regs::PRIORITY_LOW), ("medium", regs::PRIORITY_MEDIUM), ("high", regs::PRIORITY_HIGH)];

/// Every setting: its name, and what it is.
pub const NAMES: [(&str, &str); 9] = [
    ("priority", "low, medium or high"),
    ("weight", "share of the GPU's time when other VMs want it too, 1 to 100"),
    ("vram", "device memory on each device, e.g. 16GiB, or none"),
    ("calls-per-second", "calls a second of all its processes together, or none"),
    ("queue-depth", "frames that may wait in a ring, or none"),
    ("kernel-timeout", "how long a kernel may run, e.g. 10s, or none"),
    ("quarantine-after", "faulted sessions that are tolerated, or none"),
    ("quarantine-within", "the time in which they are counted, e.g. 60s"),
    ("quarantine-for", "how long the quarantine lasts, e.g. 10min, or none: until it is cleared"),
];

/// Sets what is called `name` to what `text` says.
///
/// # Errors
/// What is wrong and what would be right, for people.
pub fn apply(settings: &mut Settings, name: &str, text: &str) -> Result<(), String> {
    let text = text.trim();
    match name {
        "priority" => settings.priority = priority(text)?,
        "weight" => settings.weight = weight(text)?,
        "vram" => settings.vram_bytes = limit(text, size)?,
        "calls-per-second" => settings.calls_per_second = limit(text, count)?,
        "queue-depth" => settings.queue_depth = limit(text, count)?,
        "kernel-timeout" => settings.kernel_timeout = limit(text, duration)?,
        "quarantine-after" => settings.quarantine.faults = limit(text, count)?.unwrap_or(0),
        "quarantine-within" => settings.quarantine.within = duration(text)?,
        "quarantine-for" => settings.quarantine.lasts = limit(text, duration)?,
        _ => {
            let names = NAMES.map(|(name, _)| name).join(", ");
            return Err(format!("there is no setting of this name; there are {names}"));
        }
    }
    Ok(())
}

/// All settings as [`apply`] takes them, in the order of [`NAMES`].
pub fn texts(settings: &Settings) -> [(&'static str, String); 9] {
    let Settings {
        priority,
        weight,
        vram_bytes,
        calls_per_second,
        queue_depth,
        kernel_timeout,
        quarantine: QuarantineRule { faults, within, lasts },
    } = *settings;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let time = |time: Duration| humantime::format_duration(time).to_string();
    let priority = PRIORITIES.iter().find(|(_, number)| *number == priority).map_or("?", |(name, _)| name);
    [
        ("priority", priority.to_owned()),
        ("weight", weight.to_string()),
        ("vram", or_none(vram_bytes.map(size_text))),
        ("calls-per-second", or_none(calls_per_second.map(|count| count.to_string()))),
        ("queue-depth", or_none(queue_depth.map(|count| count.to_string()))),
        ("kernel-timeout", or_none(kernel_timeout.map(time))),
        ("quarantine-after", or_none((faults != 0).then(|| faults.to_string()))),
        ("quarantine-within", time(within)),
        ("quarantine-for", or_none(lasts.map(time))),
    ]
}

fn limit<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == NONE { Ok(None) } else { read(text).map(Some) }
}

fn priority(text: &str) -> Result<u32, String> {
    let found = PRIORITIES.iter().find(|(name, _)| *name == text);
    found.map(|(_, number)| *number).ok_or_else(|| "a priority is low, medium or high".into())
}

fn weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight));
    weight.ok_or_else(|| format!("a weight is a number from 1 to {WEIGHT_MAX}"))
}

fn count(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| *count != 0);
    count.ok_or_else(|| format!("it is a number from 1 to {}, or {NONE}", u32::MAX))
}

fn duration(text: &str) -> Result<Duration, String> {
    let found = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    found.ok_or_else(|| "a time is a number and its unit: 500ms, 10s, 5min, 2h".into())
}

/// A size in bytes: a number, alone or with KiB, MiB, GiB or TiB (the "iB" may be left out).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().trim_end_matches("iB") {
        "" if !unit.contains("iB") => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("the unit is KiB, MiB, GiB or TiB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a size begins with a number")?;
    let bytes = number.checked_mul(1 << shift).ok_or("more than 64 bits of bytes")?;
    if bytes == 0 { Err("a size of 0 would leave no memory at all".into()) } else { Ok(bytes) }
}

/// The largest unit in which the size is a whole number.
fn size_text(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_set_by_its_name_and_said_as_it_was_written() {
        let written = [
            ("priority", "high"),
            ("weight", "30"),
            ("vram", "16GiB"),
            ("calls-per-second", "100000"),
            ("queue-depth", "64"),
            ("kernel-timeout", "1m 30s"),
            ("quarantine-after", "5"),
            ("quarantine-within", "10s"),
            ("quarantine-for", "10m"),
        ];
        let mut settings = Settings::default();
        for (name, text) in written {
            apply(&mut settings, name, text).unwrap();
        }
        assert_eq!(texts(&settings).map(|(name, _)| name), NAMES.map(|(name, _)| name));
        for ((name, text), (_, said)) in written.iter().zip(texts(&settings)) {
            assert_eq!(*text, said, "{name}");
        }
        let expected = Settings {
            priority: regs::PRIORITY_HIGH,
            weight: 30,
            vram_bytes: Some(16 << 30),
            calls_per_second: Some(100_000),
            queue_depth: Some(64),
            kernel_timeout: Some(Duration::from_secs(90)),
            quarantine: QuarantineRule {
                faults: 5,
                within: Duration::from_secs(10),
                lasts: Some(Duration::from_secs(600)),
            },
        };
        assert_eq!(settings, expected);
        for name in [
            "vram",
            "calls-per-second",
            "queue-depth",
            "kernel-timeout",
            "quarantine-after",
            "quarantine-for",
        ] {
            apply(&mut settings, name, NONE).unwrap();
        }
        let Settings { vram_bytes, calls_per_second, queue_depth, kernel_timeout, quarantine, .. } = settings;
        assert_eq!((vram_bytes, calls_per_second, queue_depth, kernel_timeout), (None, None, None, None));
        assert_eq!((quarantine.faults, quarantine.lasts), (0, None));
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut settings = Settings::default();
        for (name, text) in [
            ("priority", "urgent"),
            ("priority", "none"),
            ("weight", "0"),
            ("weight", "101"),
            ("vram", "lots"),
            ("vram", "5XiB"),
            ("vram", "5iB"),
            ("vram", "0"),
            ("vram", "99999999999TiB"),
            ("calls-per-second", "0"),
            ("queue-depth", "-1"),
            ("kernel-timeout", "10"),
            ("kernel-timeout", "0s"),
            ("quarantine-within", "none"),
            ("colour", "red"),
        ] {
            assert!(apply(&mut settings, name, text).is_err(), "{name} {text}");
        }
        assert_eq!(settings, Settings::default());
        assert!(apply(&mut settings, "colour", "red").unwrap_err().contains("kernel-timeout"));
    }

    #[test]
    fn sizes_may_leave_the_unit_short_or_out() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("2MiB"), Ok(2 << 20));
        assert_eq!(size("1T"), Ok(1 << 40));
        assert_eq!(size_text(3 << 20), "3MiB");
        assert_eq!(size_text(1001), "1001");
    }
}
