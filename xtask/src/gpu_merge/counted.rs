//! What was counted in a VM, a line for each loop. These are no times, so they have a table of their own.

use std::fmt::Write as _;

use serde_json::Value;

use super::{cell, figures, text};

/// The unit of what was counted (`tests/gpu/runner/compare.py`).
pub(super) const UNIT: &str = "per 1000 calls";

/// The table of measurements with that unit, whose names are `LOOP: WHAT`. A column for each WHAT of our side, then those of the native one.
pub(super) fn table<'a>(measured: impl Iterator<Item = &'a Value>) -> String {
    let (mut loops, mut columns) = (Vec::new(), Vec::new());
    let mut values = Vec::new();
    for value in measured {
        let Some((name, what)) = text(value, "/name").rsplit_once(": ") else { continue };
        for side in ["ours", "native"] {
            let Some(number) = value.get(side).and_then(Value::as_f64) else { continue };
            if !loops.contains(&name) {
                loops.push(name);
            }
            if !columns.contains(&(side, what)) {
                columns.push((side, what));
            }
            values.push((name, (side, what), figures(number)));
        }
    }
    columns.sort_by_key(|(side, _)| *side == "native");
    let mut table = "\n### In the VM, counted for 1000 calls\n\n| loop |".to_owned();
    for (side, what) in &columns {
        let _ = write!(table, " {}{} |", cell(what), if *side == "native" { ", natively" } else { "" });
    }
    let _ = writeln!(table, "\n|---|{}", "---|".repeat(columns.len()));
    for name in &loops {
        let _ = write!(table, "| {} |", cell(name));
        for column in &columns {
            let value = values.iter().find(|(of, what, _)| of == name && what == column);
            let _ = write!(table, " {} |", value.map_or("not run", |(_, _, number)| number));
        }
        table.push('\n');
    }
    if loops.is_empty() {
        table.push_str("| all: not run |\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_loop_and_a_column_for_each_count() {
        let measured = [
            r#"{"name": "launches: kicks", "native": null, "ours": 2.0}"#,
            r#"{"name": "launches: system calls", "native": 1.0, "ours": 12.5}"#,
            r#"{"name": "copies, two: kicks", "native": null, "ours": 300.0}"#,
        ]
        .map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
        assert_eq!(
            table(measured.iter()),
            "\n### In the VM, counted for 1000 calls\n\n\
             | loop | kicks | system calls | system calls, natively |\n|---|---|---|---|\n\
             | launches | 2.00 | 12.5 | 1.00 |\n| copies, two | 300 | not run | not run |\n"
        );
        assert!(table([].iter()).ends_with("| loop |\n|---|\n| all: not run |\n"));
    }
}
