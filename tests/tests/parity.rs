//! The runner of `tests/gpu` and the programs of `tests/parity`, without a GPU: every case has to be carried out by the software executor,
//! or refused, without ending its process or the session. What driver 580 has said on a machine with a GPU (CUDA 13.0, an H200) is in
//! `tests/parity/native.jsonl`, as the runner keeps it (`--out FILE` writes `FILE.native`); the cases of `tests/parity/soft.txt` say the
//! same here.

use std::path::Path;
use std::process::Command;

use harness::wheels::Toolkit;
use harness::{repository, store};
use serde_json::Value;
use whole_stack::artifacts::{self, Profile};
use whole_stack::programs;

#[test]
fn no_case_ends_its_process_and_many_say_what_the_driver_says() {
    let daemon = artifacts::daemon(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let libcuda = artifacts::libcuda(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let headers = store("parity");
    std::fs::create_dir_all(&headers).unwrap();
    programs::kernel_headers(Toolkit::Cuda13, &headers).unwrap_or_else(|e| panic!("{e:?}"));
    let include = Toolkit::Cuda13.include_folders().unwrap_or_else(|e| panic!("{e:?}"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("rows.jsonl");
    let mut run = Command::new("python3");
    run.arg(repository().join("tests/gpu/run.py"))
        .args([
            "--ours-only",
            "--executor",
            "soft",
            "--only",
            "parity/*",
            "--time-limit",
            "300",
            "--jobs",
            "1",
        ])
        .args(["--python", "python3", "--daemon"])
        .arg(daemon)
        .arg("--shim")
        .arg(libcuda)
        .arg("--headers")
        .arg(headers)
        .arg("--parity")
        .arg(repository().join("tests/parity"))
        .arg("--native-from")
        .arg(repository().join("tests/parity/native.jsonl"))
        .arg("--cuda-include")
        .arg(include.first().expect("a folder of headers"))
        .arg("--out")
        .arg(&out)
        .arg("--work")
        .arg(folder.path().join("work"));
    let done = run.output().expect("python3 starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // What a kernel's assert prints looks like a case, and is none of the program's: the software executor has no assert.
    let is_case = |line: &&Value| {
        let name = line.get("case").and_then(Value::as_str).unwrap_or_default();
        line.get("program").is_some() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let rows: Vec<_> = lines.iter().filter(is_case).collect();
    assert!(rows.len() > 20, "{said}{text}");
    for row in &rows {
        assert_eq!(row.pointer("/ours/status").and_then(Value::as_str), Some("ok"), "{row}");
    }
    let word = |row: &Value, at: &str| row.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let expected = std::fs::read_to_string(repository().join("tests/parity/soft.txt")).unwrap();
    let mut wrong = Vec::new();
    for case in expected.lines().filter(|line| !line.starts_with('#')) {
        let (program, name) = case.split_once(' ').expect("a program and a case");
        let row = rows.iter().find(|row| word(row, "/program") == program && word(row, "/case") == name);
        if row.and_then(|row| row.pointer("/same")) != Some(&Value::Bool(true)) {
            wrong.push(format!("{case}: {}", row.map_or("was not run".into(), |row| row.to_string())));
        }
    }
    assert!(wrong.is_empty(), "other than driver 580:\n{}", wrong.join("\n"));
    let end = lines.iter().find_map(|line| line.get("end")).expect("it came to its end");
    for (path, wanted) in [
        ("/complete", Value::from(true)),
        ("/totals/sessions_open", 0.into()),
        ("/totals/posted_errors", 0.into()),
    ] {
        assert_eq!(end.pointer(path), Some(&wanted), "{path}: {end}");
    }
    assert_eq!(end.pointer("/daemon/workers_left").and_then(Value::as_array).map(Vec::len), Some(0), "{end}");
}

#[test]
fn the_runner_s_own_tests() {
    let tests = repository().join("tests/gpu/test_runner.py");
    let done = Command::new("python3").arg(Path::new(&tests)).output().expect("python3 starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
