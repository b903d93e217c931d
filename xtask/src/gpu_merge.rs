//! The tables of `docs/compatibility.md` and `docs/performance.md`, from what `tests/gpu/run.py` wrote on a machine with a GPU.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use harness::progress::step;
use harness::repository;
use serde_json::Value;

mod counted;

/// Renew the tables of docs/compatibility.md and docs/performance.md from results of tests/gpu/run.py
///
/// A row that no file has is `not run`. Where two files have the same row, the later one counts. Without a file, every row is `not run`.
#[derive(Args)]
pub(crate) struct GpuMerge {
    /// What run.py wrote (--out)
    file: Vec<PathBuf>,
}

const BEGIN: &str = "<!-- gpu-merge: begin -->";
const END: &str = "<!-- gpu-merge: end -->";

impl GpuMerge {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut results = Results::new(&known_rows()?);
        for path in &self.file {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            results.read(&text).with_context(|| path.display().to_string())?;
        }
        for (page, table) in
            [("compatibility", results.compatibility()), ("performance", results.performance())]
        {
            let path = repository().join("docs").join(format!("{page}.md"));
            let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(&path, replace(&old, &table)?)?;
            step(format_args!("wrote {}", path.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The rows that the runner would run, so that those nobody ran are seen.
fn known_rows() -> Result<Vec<String>> {
    let folder = repository().join("tests/gpu");
    let mut list = Command::new("python3");
    list.arg(folder.join("run.py")).arg("--list").arg("--parity").arg(repository().join("tests/parity"));
    let done = list.output().context("python3 does not start")?;
    ensure!(done.status.success(), "run.py --list: {}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    Ok(text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect())
}

/// A page with the part between its markers replaced.
fn replace(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no marker where the table begins")?;
    let (_, after) = rest.split_once(END).context("the page has no marker where the table ends")?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// Which program, over which transport.
type Key = (String, String);

#[derive(Default)]
struct Results {
    /// In the runner's order, then in the order of the files.
    order: Vec<Key>,
    rows: BTreeMap<Key, Program>,
    machines: Vec<String>,
    left_over: Vec<String>,
}

/// A program: one result, or one for each of its cases.
#[derive(Default)]
struct Program {
    whole: Option<Value>,
    cases: Vec<Value>,
    counts: Option<Value>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Results {
    fn new(known: &[String]) -> Self {
        let mut results = Self::default();
        for name in known {
            let (transport, name) = name.strip_prefix("vm/").map_or(("local", name.as_str()), |n| ("vm", n));
            results.program(&(name.to_owned(), transport.to_owned()));
        }
        results
    }

    fn program(&mut self, key: &Key) -> &mut Program {
        if !self.rows.contains_key(key) {
            self.order.push(key.clone());
        }
        self.rows.entry(key.clone()).or_default()
    }

    /// Adds the lines of a file. A last line that was cut short is left out.
    fn read(&mut self, file: &str) -> Result<()> {
        let mut transport = "local".to_owned();
        let mut begun = Vec::new();
        let mut lines = file.lines().peekable();
        while let Some(line) = lines.next() {
            let value: Value = match serde_json::from_str(line) {
                Ok(value) => value,
                Err(_) if lines.peek().is_none() => break,
                Err(error) => return Err(error).context("a line that is no JSON"),
            };
            let own = text(&value, "/transport").to_owned();
            let key =
                |name: &str| (name.to_owned(), if own.is_empty() { transport.clone() } else { own.clone() });
            if let Some(header) = value.get("header") {
                text(header, "/transport").clone_into(&mut transport);
                self.machines.push(machine(header));
            } else if let Some(end) = value.get("end") {
                self.left_over.push(left_over(end));
            } else if let Some(name) = value.get("summary").and_then(Value::as_str) {
                let key = key(name);
                self.program(&key).counts = Some(value);
            } else if let Some(name) = value.get("program").and_then(Value::as_str) {
                let key = key(name);
                let first = !begun.contains(&key);
                let program = self.program(&key);
                if first {
                    *program = Program::default();
                    begun.push(key);
                }
                if value.get("case").is_some() {
                    program.cases.push(value);
                } else {
                    program.whole = Some(value);
                }
            }
        }
        Ok(())
    }

    fn compatibility(&self) -> String {
        let mut table = self.about();
        table.push_str("| program | transport | native | ours | the same | |\n|---|---|---|---|---|---|\n");
        for key in &self.order {
            let Some(program) = self.rows.get(key) else { continue };
            let [native, ours, same, note] = program.columns();
            let _ = writeln!(table, "| {} | {} | {native} | {ours} | {same} | {note} |", cell(&key.0), key.1);
        }
        table
    }

    fn performance(&self) -> String {
        let mut table = self.about();
        table
            .push_str("| measurement | transport | native | ours | ours / native |\n|---|---|---|---|---|\n");
        let mut any = false;
        for (key, time) in self.measurements().filter(|(_, time)| text(time, "/unit") != counted::UNIT) {
            any = true;
            let number = |name: &str| time.get(name).and_then(Value::as_f64);
            let side = |name| {
                number(name)
                    .map_or("not run".to_owned(), |n| format!("{} {}", figures(n), text(time, "/unit")))
            };
            let ratio = number("ratio").map_or("not run".to_owned(), figures);
            let name = cell(text(time, "/name"));
            // The guest's CPU is emulated: its times are no measure of a VM, and whoever reads the table has to see it.
            let transport = if key.1 == "vm" { "vm, CPU emulated" } else { &key.1 };
            let _ =
                writeln!(table, "| {name} | {transport} | {} | {} | {ratio} |", side("native"), side("ours"));
        }
        if !any {
            table.push_str("| all | local | not run | not run | not run |\n");
        }
        let counts =
            self.measurements().map(|(_, count)| count).filter(|count| text(count, "/unit") == counted::UNIT);
        table + &counted::table(counts)
    }

    /// Everything that was measured, with whose it is.
    fn measurements(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.order.iter().flat_map(|key| {
            let whole = self.rows.get(key).and_then(|program| program.whole.as_ref());
            let timing = whole.and_then(|whole| whole.get("timing")).and_then(Value::as_array);
            timing.into_iter().flatten().map(move |time| (key, time))
        })
    }

    /// The machines and what was left over, above the table.
    fn about(&self) -> String {
        let mut about = String::new();
        for machine in &self.machines {
            let _ = writeln!(about, "{machine}");
        }
        for left in self.left_over.iter().filter(|left| !left.is_empty()) {
            let _ = writeln!(about, "{left}");
        }
        if !about.is_empty() {
            about.push('\n');
        }
        about
    }
}

fn machine(header: &Value) -> String {
    let changed = header.pointer("/bundle/changed").and_then(Value::as_bool).unwrap_or(false);
    let known = |path: &str, otherwise| {
        Some(text(header, path)).filter(|t| !t.is_empty()).unwrap_or(otherwise).to_owned()
    };
    let packages = header.get("packages").and_then(Value::as_object).into_iter().flatten();
    let packages: String = packages
        .map(|(name, version)| format!(", {name} {}", version.as_str().unwrap_or_default()))
        .collect();
    format!(
        "{}: {}; {}, {} cores, Linux {}; nvcc {}{packages}; executor {}; commit {}{}.",
        known("/date", "no date"),
        known("/machine/gpu", "no GPU"),
        known("/machine/cpu", "unknown"),
        header.pointer("/machine/cores").and_then(Value::as_u64).unwrap_or_default(),
        known("/machine/kernel", "unknown"),
        known("/machine/nvcc", "none"),
        known("/executor", "unknown"),
        known("/bundle/commit", "unknown"),
        if changed { " with changes" } else { "" },
    )
}

fn left_over(end: &Value) -> String {
    let number = |path: &str| end.pointer(path).and_then(Value::as_i64);
    let mut parts = Vec::new();
    if let Some(errors) = number("/totals/posted_errors") {
        parts.push(format!("{errors} deferred errors"));
    }
    if let Some(open) = number("/totals/sessions_open") {
        parts.push(format!("{open} sessions left open"));
    }
    if let Some(left) = end.pointer("/daemon/workers_left").and_then(Value::as_array) {
        parts.push(format!("{} workers left", left.len()));
    }
    if let Some(memory) = number("/left/memory_mib") {
        parts.push(format!("{memory} MiB of device memory more in use than before"));
    }
    for (name, guest) in end.get("guests").and_then(Value::as_object).into_iter().flatten() {
        let number = |path: &str| guest.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        parts.push(format!(
            "in the {name} guest {} deferred errors, {} sessions left open, Linux {}",
            number("/totals/posted_errors"),
            number("/totals/sessions_open"),
            text(guest, "/kernel"),
        ));
    }
    if parts.is_empty() { String::new() } else { format!("At its end: {}.", parts.join(", ")) }
}

impl Program {
    /// Native, ours, the same, and a note.
    fn columns(&self) -> [String; 4] {
        match &self.whole {
            Some(whole) if self.cases.is_empty() => one(whole),
            _ if self.cases.is_empty() => ["not run", "not run", "not run", ""].map(str::to_owned),
            _ => self.cases(),
        }
    }

    fn cases(&self) -> [String; 4] {
        let all = self.cases.len();
        let ran = |side: &str| {
            let count = self.cases.iter().filter(|case| case.get(side).is_some_and(|s| !s.is_null())).count();
            if count == 0 { "not run".to_owned() } else { format!("{count} cases") }
        };
        let named = |wanted: fn(&Value) -> bool| {
            let cases = self.cases.iter().filter(|case| wanted(&case["same"]));
            cases.map(|case| text(case, "/case")).collect::<Vec<_>>()
        };
        let same = named(|same| same.as_bool() == Some(true)).len();
        let different = named(|same| same.as_bool() == Some(false));
        let not_run = all - same - different.len();
        let verdict = match (same, different.len()) {
            (0, 0) => "not run".to_owned(),
            (_, 0) if not_run == 0 => "yes".to_owned(),
            _ => format!("{same} of {all}"),
        };
        let mut notes = Vec::new();
        if !different.is_empty() {
            notes.push(format!("differ: {}", different.join(", ")));
        }
        if not_run > 0 && not_run < all {
            notes.push(format!("{not_run} not run"));
        }
        notes.extend(self.counts.as_ref().and_then(deferred));
        [ran("native"), ran("ours"), verdict, cell(&notes.join("; "))]
    }
}

fn deferred(value: &Value) -> Option<String> {
    let count = value.get("deferred_errors").and_then(Value::as_i64).filter(|count| *count != 0)?;
    let beside = if value.get("beside").is_some() { " in it or beside it" } else { "" };
    Some(format!("{count} deferred errors{beside}"))
}

fn one(row: &Value) -> [String; 4] {
    let side = |name: &str| match row.get(name).filter(|side| side.is_object()) {
        None => "not run".to_owned(),
        Some(side) => {
            let status = text(side, "/status");
            let seconds = side.get("seconds").and_then(Value::as_f64).filter(|_| status == "ok");
            cell(&seconds.map_or(status.to_owned(), |s| format!("{status}, {s:.1} s")))
        }
    };
    let same = match &row["same"] {
        Value::Bool(true) => "yes",
        Value::Bool(false) => "no",
        _ => "not run",
    };
    let reason = text(row, "/reason").lines().next().unwrap_or_default();
    let difference = row.pointer("/difference/0").and_then(Value::as_str).unwrap_or_default();
    let mut notes: Vec<String> =
        [reason, difference].iter().filter(|n| !n.is_empty()).map(|n| shortened(n)).collect();
    let unsteady = row.get("unsteady").and_then(Value::as_array).map_or(0, Vec::len);
    if unsteady > 0 {
        notes.push(format!("left out: {unsteady} lines that the native program does not say the same twice"));
    }
    notes.extend(deferred(row));
    [side("native"), side("ours"), same.to_owned(), cell(&notes.join("; "))]
}

/// How much of a program's words a table shows; the file has more.
const MOST_WORDS: usize = 160;

fn shortened(text: &str) -> String {
    if text.chars().count() <= MOST_WORDS {
        return text.to_owned();
    }
    text.chars().take(MOST_WORDS).chain(['…']).collect()
}

/// Text as a table's cell. Nothing in it may end the cell or begin markup.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' => cell.push(' '),
            '|' | '`' | '*' | '_' | '<' | '[' | ']' => cell.extend(['\\', c]),
            _ => cell.push(c),
        }
    }
    cell
}

/// Three figures.
fn figures(number: f64) -> String {
    let size = number.abs();
    if size >= 100.0 {
        format!("{number:.0}")
    } else if size >= 10.0 {
        format!("{number:.1}")
    } else if size >= 1.0 {
        format!("{number:.2}")
    } else {
        format!("{number:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"header": {"date": "2026-01-02", "transport": "local", "executor": "cuda", "machine": {"gpu": "A GPU, 580", "cpu": "A CPU", "cores": 16, "kernel": "6.1", "nvcc": "13.0"}, "packages": {"torch": "2.11"}, "bundle": {"commit": "abc"}}}
{"program": "parity/x", "transport": "local", "case": "a", "native": {"status": "ok"}, "ours": {"status": "ok"}, "same": true}
{"program": "parity/x", "transport": "local", "case": "b", "native": {"status": "ok"}, "ours": {"status": "died: SIGSEGV"}, "same": false}
{"summary": "parity/x", "deferred_errors": 2}
{"program": "p", "transport": "local", "native": {"status": "ok", "seconds": 1.25}, "ours": {"status": "ok", "seconds": 2}, "same": false, "difference": ["native: a|b"]}
{"program": "timing/t", "transport": "local", "native": {"status": "ok", "seconds": 1}, "ours": {"status": "ok", "seconds": 1}, "same": true, "timing": [{"name": "launch", "unit": "us", "native": 2.0, "ours": 3.0, "ratio": 1.5}]}
{"program": "skipped", "transport": "local", "native": null, "ours": null, "same": "not run", "reason": "no torch"}
{"end": {"totals": {"posted_errors": 2, "sessions_open": 0}, "daemon": {"workers_left": []}, "left": {"memory_mib": 0}}}
{"program": "cut"#;

    fn results(files: &[&str]) -> Results {
        let mut results = Results::new(&["p".into(), "never".into()]);
        for file in files {
            results.read(file).expect("it is in order");
        }
        results
    }

    #[test]
    fn every_row_has_its_line_and_known_rows_come_first() {
        let table = results(&[FILE]).compatibility();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[0],
            "2026-01-02: A GPU, 580; A CPU, 16 cores, Linux 6.1; nvcc 13.0, torch 2.11; executor cuda; commit abc."
        );
        assert_eq!(
            lines[1],
            "At its end: 2 deferred errors, 0 sessions left open, 0 workers left, 0 MiB of device memory more in use than before."
        );
        assert_eq!(lines[5], "| p | local | ok, 1.2 s | ok, 2.0 s | no | native: a\\|b |");
        assert_eq!(lines[6], "| never | local | not run | not run | not run |  |");
        assert_eq!(
            lines[7],
            "| parity/x | local | 2 cases | 2 cases | 1 of 2 | differ: b; 2 deferred errors |"
        );
        assert_eq!(lines[9], "| skipped | local | not run | not run | not run | no torch |");
        assert_eq!(lines.len(), 10);
    }

    #[test]
    fn times_with_their_ratio() {
        let table = results(&[FILE]).performance();
        assert!(table.contains("| launch | local | 2.00 us | 3.00 us | 1.50 |\n"), "{table}");
        assert!(results(&[]).performance().contains("| all | local | not run | not run | not run |\n"));
    }

    #[test]
    fn counts_have_a_table_of_their_own_and_times_of_a_guest_say_what_they_are() {
        let file = r#"{"program": "counted/x", "transport": "vm", "native": null, "ours": null, "same": true, "timing": [{"name": "launches: system calls", "unit": "per 1000 calls", "native": null, "ours": 12.5}]}
{"program": "timing/register", "transport": "vm", "native": null, "ours": null, "same": true, "timing": [{"name": "register", "unit": "us", "native": 2.0, "ours": 3.0, "ratio": 1.5}]}"#;
        let table = results(&[file]).performance();
        let (times, counts) = table.split_once("### In the VM, counted").expect("it has both");
        assert!(times.contains("| register | vm, CPU emulated | 2.00 us | 3.00 us | 1.50 |\n"), "{table}");
        assert!(counts.ends_with("| launches | 12.5 |\n"), "{table}");
    }

    #[test]
    fn a_later_file_replaces_a_program_and_all_its_cases() {
        let later = r#"{"program": "parity/x", "transport": "local", "case": "b", "native": {"status": "ok"}, "ours": {"status": "ok"}, "same": true}"#;
        let table = results(&[FILE, later]).compatibility();
        assert!(table.contains("| parity/x | local | 1 cases | 1 cases | yes |  |"), "{table}");
    }

    #[test]
    fn a_program_in_a_vm_is_a_row_of_its_own() {
        let mut results = Results::new(&["p".into(), "vm/p".into(), "vm/parity/x".into()]);
        let vm = r#"{"header": {"transport": "local"}}
{"program": "p", "transport": "vm", "native": {"status": "ok", "seconds": 1}, "ours": {"status": "ok", "seconds": 30}, "same": true}
{"program": "parity/x", "transport": "vm", "case": "a", "native": {"status": "ok"}, "ours": {"status": "ok"}, "same": true}
{"summary": "parity/x", "transport": "vm", "deferred_errors": 3}
{"end": {"guests": {"small": {"kernel": "6.1", "totals": {"posted_errors": 3, "sessions_open": 0}}}}}"#;
        for file in [FILE, vm] {
            results.read(file).expect("it is in order");
        }
        let table = results.compatibility();
        for line in [
            "| p | local | ok, 1.2 s | ok, 2.0 s | no | native: a\\|b |",
            "| p | vm | ok, 1.0 s | ok, 30.0 s | yes |  |",
            "| parity/x | vm | 1 cases | 1 cases | yes | 3 deferred errors |",
            "| parity/x | local | 2 cases | 2 cases | 1 of 2 | differ: b; 2 deferred errors |",
            "At its end: in the small guest 3 deferred errors, 0 sessions left open, Linux 6.1.",
        ] {
            assert!(table.lines().any(|l| l == line), "{line}\n{table}");
        }
    }

    #[test]
    fn only_a_last_line_may_be_cut_short() {
        let mut results = Results::new(&[]);
        assert!(results.read("{\"program\": \"x\"}\n{\"progr").is_ok());
        assert!(results.read("{\"progr\n{\"program\": \"x\"}").is_err());
    }

    #[test]
    fn the_prose_around_the_table_stays() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(
            replace(&page, "new\n").expect("it has markers"),
            format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n")
        );
        assert!(replace("no markers", "new").is_err());
    }
}
