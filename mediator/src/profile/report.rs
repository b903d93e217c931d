//! The files: JSON for programs and a table for people, in the VM's folder for them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Numbers, Profile};

/// Lines of the table.
const TABLE_LINES: usize = 30;
/// Sessions of which a daemon writes files: the guest chooses how many there are.
const FILES_MAX: u32 = 4096;

/// Whose numbers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) vm: u32,
    pub(crate) session: u32,
    /// The guest process, as it is called in the guest.
    pub(crate) guest_pid: u32,
    pub(crate) worker_pid: i32,
    /// Since the session was opened.
    pub(crate) duration: Duration,
}

struct Call {
    id: u32,
    waited: u64,
    times: Numbers,
}

impl Call {
    fn name(&self) -> String {
        match cuda_api::call_by_id(self.id) {
            Some(call) => call.name.to_owned(),
            None => format!("call {:#06x}", self.id),
        }
    }
}

/// A session's numbers at one time.
struct Report {
    subject: Subject,
    waits: [(&'static str, Numbers); 3],
    /// Those with the largest sum first.
    calls: Vec<Call>,
}

/// Nanoseconds as microseconds, for both kinds of file.
fn us(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}

impl Report {
    fn new(subject: Subject, profile: &Profile) -> Self {
        let mut calls: Vec<Call> =
            profile.calls().map(|(id, waited, times)| Call { id, waited, times }).collect();
        calls.sort_by_key(|call| std::cmp::Reverse(call.times.total_ns));
        let waits = [
            ("polled", profile.polls.read()),
            ("parked", profile.parks.read()),
            ("order_wait", profile.order_waits.read()),
        ];
        Self { subject, waits, calls }
    }

    fn busy_ns(&self) -> u64 {
        self.calls.iter().fold(0, |sum, call| sum.saturating_add(call.times.total_ns))
    }

    /// One object. Names of calls are plain, so nothing has to be escaped.
    fn json(&self) -> String {
        let Subject { vm, session, guest_pid, worker_pid, duration } = self.subject;
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{{\"vm\": {vm}, \"session\": {session}, \"guest_pid\": {guest_pid}, \"worker_pid\": {worker_pid}, \
             \"duration_us\": {},\n \"ring_threads\": {{\"busy_us\": {}",
            duration.as_micros(),
            us(self.busy_ns())
        );
        for (name, times) in &self.waits {
            let _ = write!(text, ", \"{name}_us\": {}", us(times.total_ns));
        }
        for (name, times) in &self.waits {
            let _ = write!(text, ",\n  \"{name}\": {{{}}}", json_of(times));
        }
        text.push_str("},\n \"calls\": [");
        for (at, call) in self.calls.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            let (name, times) = (call.name(), json_of(&call.times));
            let _ = write!(
                text,
                "{separator}\n  {{\"name\": \"{name}\", \"id\": {}, \"waited\": {}, {times}}}",
                call.id, call.waited
            );
        }
        text.push_str("\n ]}\n");
        text
    }

    fn table(&self) -> String {
        let Subject { vm, session, guest_pid, worker_pid, duration } = self.subject;
        let mut text = format!(
            "VM {vm} session {session}: guest process {guest_pid}, worker {worker_pid}, {} ms\n\n",
            duration.as_millis()
        );
        let busy = self.busy_ns();
        let _ =
            writeln!(text, "{:<24} {:>12} {:>14} {:>12}", "ring threads", "times", "total ms", "longest ms");
        let count = self.calls.iter().fold(0u64, |sum, call| sum.saturating_add(call.times.count));
        let longest = self.calls.iter().map(|call| call.times.max_ns).max().unwrap_or(0);
        let of_calls = Numbers { count, total_ns: busy, max_ns: longest, buckets: Vec::new() };
        let said = ["empty ring, looked at", "empty ring, asleep", "waited for their turn"];
        let lines = said.into_iter().zip(self.waits.iter().map(|(_, times)| times));
        for (name, times) in std::iter::once(("in calls", &of_calls)).chain(lines) {
            let (total, longest) = (us(times.total_ns / 1000), us(times.max_ns / 1000));
            let _ = writeln!(text, "{name:<24} {:>12} {total:>14} {longest:>12}", times.count);
        }
        let _ = writeln!(
            text,
            "\n{:>14} {:>6} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}  call",
            "total ms", "share", "times", "waited for", "mean us", "50% within", "99% within", "longest us"
        );
        for call in self.calls.iter().take(TABLE_LINES) {
            let times = &call.times;
            let permille = u128::from(times.total_ns).saturating_mul(1000) / u128::from(busy.max(1));
            let _ = writeln!(
                text,
                "{:>14} {:>4}.{}% {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}  {}",
                us(times.total_ns / 1000),
                permille / 10,
                permille % 10,
                times.count,
                call.waited,
                us(times.mean_ns()),
                us(times.percentile_ns(50)),
                us(times.percentile_ns(99)),
                us(times.max_ns),
                call.name()
            );
        }
        text
    }
}

/// The members of an object that is about these times.
fn json_of(times: &Numbers) -> String {
    let histogram: Vec<String> =
        times.histogram().map(|(from_ns, count)| format!("[{from_ns}, {count}]")).collect();
    format!(
        "\"count\": {}, \"total_us\": {}, \"mean_us\": {}, \"max_us\": {}, \"histogram_ns\": [{}]",
        times.count,
        us(times.total_ns),
        us(times.mean_ns()),
        us(times.max_ns),
        histogram.join(", ")
    )
}

/// The folder that a VM's profiles go to.
pub(crate) struct Profiles {
    folder: PathBuf,
    /// How many have been written; held while one is.
    written: Mutex<u32>,
}

impl Profiles {
    /// Files in `folder`, which is made if it is not there.
    pub(crate) fn new(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), written: Mutex::new(0) })
    }

    /// Writes a session's two files, over those that it has already.
    pub(crate) fn write(&self, subject: Subject, profile: &Profile) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that what stays is what was read last.
        let report = Report::new(subject, profile);
        let Subject { vm, session, guest_pid, .. } = subject;
        let path = self.folder.join(format!("vm{vm}-session{session}-{guest_pid}.json"));
        if !path.exists() {
            if *written >= FILES_MAX {
                log::debug!("no more than {FILES_MAX} profiles are written");
                return;
            }
            *written = written.saturating_add(1);
        }
        // The table first: who waits for the JSON finds both.
        let files = [(path.with_extension("txt"), report.table()), (path, report.json())];
        for (path, text) in files {
            // Whole or not at all, for those who read it meanwhile.
            let fresh = path.with_extension("new");
            let done = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path));
            if let Err(error) = done {
                log::error!("{}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiled() -> (Subject, Profile) {
        let (profile, _) = Profile::create().expect("a file");
        profile.call(0x0101, false, Duration::from_micros(3));
        profile.call(0x0101, false, Duration::from_micros(5));
        profile.call(0x0fff, true, Duration::from_millis(2));
        profile.parks.add(Duration::from_millis(70));
        let duration = Duration::from_millis(1234);
        (Subject { vm: 1, session: 2, guest_pid: 345, worker_pid: 678, duration }, profile)
    }

    #[test]
    fn the_files_say_it_for_programs_and_for_people() {
        let (subject, profile) = profiled();
        let report = Report::new(subject, &profile);
        let json = report.json();
        for part in [
            "{\"vm\": 1, \"session\": 2, \"guest_pid\": 345, \"worker_pid\": 678, \"duration_us\": 1234000,",
            "\"busy_us\": 2008.000, \"polled_us\": 0.000, \"parked_us\": 70000.000, \"order_wait_us\": 0.000,",
            "\"calls\": [\n  {\"name\": \"call 0x0fff\", \"id\": 4095, \"waited\": 1, \"count\": 1, ",
            "{\"name\": \"cuLaunchKernel\", \"id\": 257, \"waited\": 0, \"count\": 2, \"total_us\": 8.000, \
             \"mean_us\": 4.000, \"max_us\": 5.000, \"histogram_ns\": [[2048, 1], [4096, 1]]}\n ]}\n",
        ] {
            assert!(json.contains(part), "{part} in {json}");
        }
        let table = report.table();
        let line = table.lines().find(|line| line.ends_with("  cuLaunchKernel")).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..5], ["0.008", "0.3%", "2", "0", "4.000"], "{table}");
    }

    #[test]
    fn a_guest_does_not_fill_the_disk() {
        let folder = std::env::temp_dir().join(format!("mediator-profiles-{}", std::process::id()));
        let profiles = Profiles::new(&folder).expect("a folder");
        let (mut subject, profile) = profiled();
        profiles.write(subject, &profile);
        profiles.write(subject, &profile);
        assert_eq!(*profiles.written.lock().expect("lock"), 1, "one session");
        *profiles.written.lock().expect("lock") = FILES_MAX;
        profiles.write(subject, &profile);
        subject.guest_pid = 346;
        profiles.write(subject, &profile);
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["vm1-session2-345.json", "vm1-session2-345.txt"]);
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
