//! How values are written.

use crate::nvml::{Answer, Code};

/// NVML's architectures, by number.
const ARCHITECTURES: [&str; 11] = [
    "",
    "",
    "Kepler",
    "Maxwell",
    "Pascal",
    "Volta",
    "Turing",
    "Ampere",
    "Ada Lovelace",
    "Hopper",
    "Blackwell",
];

/// NVML's brands, by number.
const BRANDS: [&str; 19] = [
    "Unknown",
    "Quadro",
    "Tesla",
    "NVS",
    "GRID",
    "GeForce",
    "Titan",
    "NVIDIA vApps",
    "NVIDIA vPC",
    "NVIDIA vCS",
    "NVIDIA vWS",
    "NVIDIA Cloud Gaming",
    "Quadro RTX",
    "NVIDIA RTX",
    "NVIDIA",
    "GeForce RTX",
    "Titan RTX",
    "NVIDIA vApps",
    "NVIDIA vGaming",
];

/// What stands where there is no value: `N/A`, or why not.
pub fn absent(code: Code) -> &'static str {
    if code.is_absence() { "N/A" } else { code.words() }
}

/// A value as `write` writes it, or what stands for it.
pub fn or_absent<T>(answer: Answer<T>, write: impl FnOnce(T) -> String) -> String {
    answer.map_or_else(|code| absent(code).to_owned(), write)
}

/// On or off, as a state.
pub fn enabled(value: u64) -> String {
    if value == 0 { "Disabled" } else { "Enabled" }.to_owned()
}

/// Yes or no.
pub fn yes(value: u64) -> String {
    if value == 0 { "No" } else { "Yes" }.to_owned()
}

/// nvmlComputeMode_t.
pub fn compute_mode(value: u64) -> String {
    match value {
        0 => "Default".to_owned(),
        1 => "Exclusive_Thread".to_owned(),
        2 => "Prohibited".to_owned(),
        3 => "Exclusive_Process".to_owned(),
        other => format!("Unknown ({other})"),
    }
}

/// nvmlDeviceArchitecture_t.
pub fn architecture(value: u64) -> String {
    let known = usize::try_from(value).ok().and_then(|at| ARCHITECTURES.get(at));
    known.filter(|name| !name.is_empty()).map_or_else(|| "Unknown".to_owned(), |name| (*name).to_owned())
}

/// nvmlBrandType_t.
pub fn brand(value: u64) -> String {
    usize::try_from(value).ok().and_then(|at| BRANDS.get(at)).unwrap_or(&"Unknown").to_string()
}

/// Whole MiB.
pub fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Milliwatts as watts with two decimals.
pub fn watts(milliwatts: u64) -> String {
    format!("{}.{:02}", milliwatts / 1000, milliwatts % 1000 / 10)
}

/// 13000 as `13.0`.
pub fn cuda_version(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A text in at most so many characters: its end replaced by dots.
pub fn cut_end(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

/// The same with its beginning replaced: the end of a path says more.
pub fn cut_beginning(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    "...".chars().chain(text.chars().skip(length + 3 - most)).collect()
}

/// Without what would move a terminal's cursor or break a line: names come from other processes.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(
            (watts(71_539), watts(700_000), watts(5)),
            ("71.53".into(), "700.00".into(), "0.00".into())
        );
        assert_eq!((cuda_version(13000), cuda_version(12080)), ("13.0".into(), "12.8".into()));
        assert_eq!((architecture(9), architecture(99)), ("Hopper".into(), "Unknown".into()));
        assert_eq!(or_absent(Err(Code::NOT_SUPPORTED), enabled), "N/A");
        assert_eq!(or_absent(Err(Code::NO_PERMISSION), enabled), "Insufficient Permissions");
        assert_eq!(cut_end("NVIDIA GeForce RTX 5090 Laptop GPU", 27), "NVIDIA GeForce RTX 5090 ...");
        assert_eq!(cut_beginning("/home/somebody/env/bin/python3", 16), "...v/bin/python3");
        assert_eq!((cut_end("short", 5), cut_beginning("short", 5)), ("short".into(), "short".into()));
        assert_eq!(printable("a\x1b[2J\nb"), "a?[2J?b");
    }
}
