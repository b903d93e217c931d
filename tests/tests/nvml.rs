//! The guest's NVML library from outside: the symbols that it has, and NVIDIA's own Python package on it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use harness::wheels;
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::{Daemon, Listen};

/// The names that NVIDIA's library of driver 580 exports.
const EXPORTS: &str = include_str!("../../guest-driver/libnvidia-ml/tests/exports-580.txt");

/// What nvidia-ml-py is asked for, as monitors and PyTorch do. Its answers are checked against one another and against what the daemon
/// shows of its devices in software.
const SCRIPT: &str = r#"
import os, pynvml as n
n.nvmlInit()
count = n.nvmlDeviceGetCount()
assert n.nvmlSystemGetDriverVersion().split(".")[0] == "580"
assert n.nvmlSystemGetCudaDriverVersion_v2() == 13000
for index in range(count):
    gpu = n.nvmlDeviceGetHandleByIndex(index)
    assert n.nvmlDeviceGetIndex(gpu) == index and n.nvmlDeviceGetMinorNumber(gpu) == index
    pci = n.nvmlDeviceGetPciInfo(gpu)
    uuid = n.nvmlDeviceGetUUID(gpu)
    same = lambda other: n.nvmlDeviceGetIndex(other) == index
    assert same(n.nvmlDeviceGetHandleByPciBusId(pci.busId)) and same(n.nvmlDeviceGetHandleByUUID(uuid))
    assert n.nvmlDeviceGetCudaComputeCapability(gpu) == (8, 0)
    assert n.nvmlDeviceGetArchitecture(gpu) == n.NVML_DEVICE_ARCH_AMPERE
    old, new = n.nvmlDeviceGetMemoryInfo(gpu), n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2)
    assert old.total == new.total == 4 << 30 and old.free + old.used == old.total and old.used == 0
    assert n.nvmlDeviceGetComputeRunningProcesses(gpu) == [] and n.nvmlDeviceGetGraphicsRunningProcesses(gpu) == []
    assert n.nvmlDeviceGetMigMode(gpu) == [0, 0] or n.nvmlDeviceGetMigMode(gpu) == (0, 0)
    refused = [
        lambda: n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU), lambda: n.nvmlDeviceGetPowerUsage(gpu),
        lambda: n.nvmlDeviceGetUtilizationRates(gpu), lambda: n.nvmlDeviceGetFanSpeed(gpu), lambda: n.nvmlDeviceGetSerial(gpu),
        lambda: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM), lambda: n.nvmlDeviceGetNvLinkState(gpu, 0),
        lambda: n.nvmlDeviceGetPersistenceMode(gpu), lambda: n.nvmlDeviceGetGpuFabricInfoV(gpu, n.byref(n.c_nvmlGpuFabricInfoV_t())),
    ]
    for ask in refused:
        try:
            ask()
            raise SystemExit("a device in software has an answer")
        except n.NVMLError_NotSupported:
            pass
    for to in range(count):
        other = n.nvmlDeviceGetHandleByIndex(to)
        assert n.nvmlDeviceGetP2PStatus(gpu, other, 0) == 0
    try:
        n.nvmlDeviceSetPersistenceMode(gpu, 1)
        raise SystemExit("a guest has changed the host's device")
    except n.NVMLError_NoPermission:
        pass
assert n.nvmlSystemGetProcessName(os.getpid())
n.nvmlShutdown()
try:
    n.nvmlDeviceGetCount()
    raise SystemExit("NVML works after its end")
except n.NVMLError_Uninitialized:
    print(f"{count} devices, all right")
"#;

fn libraries() -> PathBuf {
    artifacts::libcuda(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"))
}

#[test]
fn it_exports_what_nvidias_does_and_nothing_else() {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"]).arg(libraries().join("libnvidia-ml.so.1"));
    let listed = nm.output().expect("nm starts (Debian: apt-get install binutils)");
    let text = String::from_utf8(listed.stdout).expect("names");
    let ours: BTreeSet<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(ours, EXPORTS.lines().collect());
}

#[test]
fn nvidias_python_package_works_on_it() {
    let libraries = libraries();
    let package = wheels::get("nvidia-ml-py", "13.580.*").unwrap_or_else(|e| panic!("{e:?}"));
    let daemon = artifacts::daemon(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let daemon = Daemon::start(&daemon, Listen::Local, &["--executor", "soft", "--soft-devices", "2"]);
    let daemon = daemon.unwrap_or_else(|e| panic!("{e:?}"));
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).env("PYTHONPATH", package).env("LD_LIBRARY_PATH", libraries);
    python.env("VGPU_TRANSPORT", "local").env("VGPU_SOCKET", daemon.socket());
    let ended = python.output().expect("python3 starts");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("2 devices, all right"), "{}\n{out}{err}", ended.status);
    // Nobody has opened a session for it.
    assert_eq!(daemon.stop().expect("it ends").get("sessions_opened"), Some(0));
}
