//! The runner of `tests/gpu` and the programs of `tests/parity`, without a GPU: every case has to be carried out by the software executor,
//! or refused, without ending its process or the session. What driver 580 has said on a machine with a GPU (CUDA 13.0, an H200) is in
//! `tests/parity/native.jsonl`, as the runner keeps it (`--out FILE` writes `FILE.native`); the cases of `tests/parity/soft.txt` say the
//! same here.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::wheels::Toolkit;
use harness::{repository, store};
use serde_json::Value;
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::{Daemon, Listen};
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

/// Runs a program of `tests/parity` against a daemon with two devices in software: what it says.
fn said_by(program: &str, folder: &Path, daemon: &Daemon, libcuda: &Path) -> String {
    let headers = store("parity");
    std::fs::create_dir_all(&headers).unwrap();
    programs::kernel_headers(Toolkit::Cuda13, &headers).unwrap_or_else(|e| panic!("{e:?}"));
    let include = Toolkit::Cuda13.include_folders().unwrap_or_else(|e| panic!("{e:?}"));
    let (source, built) =
        (repository().join("tests/parity").join(format!("{program}.c")), folder.join(program));
    let mut compiler = Command::new("gcc");
    compiler.args(["-O1", "-w", "-pthread", "-o"]).arg(&built).arg(&source).arg("-I").arg(&headers);
    include.iter().for_each(|path| {
        compiler.arg("-isystem").arg(path);
    });
    compiler.arg("-L").arg(libcuda).arg("-l:libcuda.so.1");
    let done = compiler.output().expect("gcc starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut run = Command::new(&built);
    run.env("LD_LIBRARY_PATH", libcuda).env("VGPU_TRANSPORT", "local").env("VGPU_SOCKET", daemon.socket());
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = harness::supervise::spawn(run).expect("it starts");
    let done =
        whole_stack::local::finish(child, Duration::from_secs(120)).unwrap_or_else(|e| panic!("{e:?}"));
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{program}: {}\n{out}{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    out
}

#[test]
fn two_devices_of_the_software_executor() {
    let program = artifacts::daemon(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let libcuda = artifacts::libcuda(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let daemon = Daemon::start(&program, Listen::Local, &["--executor", "soft", "--soft-devices", "2"])
        .unwrap_or_else(|e| panic!("{e:?}"));
    let folder = tempfile::tempdir().unwrap();
    let out = ["peer", "peer_memory"].map(|name| said_by(name, folder.path(), &daemon, &libcuda)).concat();
    for bad in ["wrong", "not run", "no memory", "not read", "device has no context", "died with"] {
        assert!(!out.contains(bad), "{bad}:\n{out}");
    }
    // What is as on two GPUs; what the software executor does not do it refuses, which the same programs say.
    for line in [
        "peer_devices: 2 devices",
        "peer_devices: two addresses, two UUIDs",
        "cuDeviceCanAccessPeer: 0 to 1: 1",
        "cuDeviceCanAccessPeer: 1 to 1: 0",
        "peer_contexts: from 0: memory of device 1",
        "peer_contexts: second, by a thread: right",
        "cuCtxEnablePeerAccess_two: allocated before: right",
        "cuCtxEnablePeerAccess_two: the other way: right",
        "cuCtxEnablePeerAccess_two: cuCtxEnablePeerAccess(other, 0) = CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED",
        "cuCtxEnablePeerAccess_two: cuCtxDisablePeerAccess(other) = CUDA_ERROR_PEER_ACCESS_NOT_ENABLED",
        "peer_pointers: device pointer: 1, none",
        "cuMemcpyPeer_two: in its stream: right",
        "cuMemcpyPeer_two: a box: right",
        "cuMemcpyPeer_enabled: by unified address: right",
        "cuMemcpyPeer_two: cuMemcpyPeer(a, context, b, 0, BYTES) = CUDA_SUCCESS",
        "peer_order: after 20 rounds: right",
        "peer_order: cuEventRecord(e[1], s[0]) = CUDA_ERROR_INVALID_HANDLE",
        "cuCtxSynchronize_two: cuStreamQuery(s) = CUDA_ERROR_NOT_READY",
        "peer_host_memory: managed: right",
        "cuMemSetAccess_two: the other device may write: right",
        "cuMemSetAccess_two: cuMemSetAccess(d, size, desc, 1) = CUDA_ERROR_INVALID_VALUE",
        "cuMemPoolSetAccess_two: read by the other device: right",
        "cuMemPoolSetAccess_two: cuMemPoolCreate(&made, &props) = CUDA_ERROR_INVALID_VALUE",
        "cuKernelSetAttribute_two: cuKernelSetCacheConfig(k, CU_FUNC_CACHE_PREFER_L1, 99) = CUDA_ERROR_INVALID_DEVICE",
        "peer_without_access: cuCtxSynchronize() = CUDA_ERROR_ILLEGAL_ADDRESS",
        "peer_fault: cuCtxSynchronize() = CUDA_ERROR_CONTEXT_IS_DESTROYED",
        "cuDevicePrimaryCtxReset_two: the first device's memory: right",
    ] {
        assert!(out.lines().any(|said| said == line), "{line}:\n{out}");
    }
    // The device that was reset has no context any more; the other one keeps the fault.
    let (_, after) =
        out.split_once("peer_fault: the other device still\n").unwrap_or_else(|| panic!("{out}"));
    let kept = after.lines().take(4).filter(|said| said.ends_with("= CUDA_ERROR_ILLEGAL_ADDRESS")).count();
    assert_eq!(kept, 4, "{out}");
    let totals = daemon.stop().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(
        (totals.get("posted_errors"), totals.get("sessions_open")),
        (Some(0), Some(0)),
        "{totals}\n{out}"
    );
}

#[test]
fn the_runner_s_own_tests() {
    let tests = repository().join("tests/gpu/test_runner.py");
    let done = Command::new("python3").arg(Path::new(&tests)).output().expect("python3 starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
