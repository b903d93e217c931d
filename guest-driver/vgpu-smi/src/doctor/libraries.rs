//! Are `libcuda.so.1` and `libnvidia-ml.so.1` this project's, and do they agree about the devices?

use serde_json::{Value, json};

use super::cuda::{self, CallFailed, Cuda};
use super::origin::Maker;
use super::{Finding, parts};
use crate::nvml::library::{self, LoadError, Loaded};
use crate::nvml::{Nvml as _, Text};

/// Removes what stands in the way.
const REMOVE: &str = "remove it, or have the loader find this project's first: ldconfig -p | grep -e libcuda.so -e libnvidia-ml.so shows the order, LD_LIBRARY_PATH comes before it";

fn cuda_side() -> Value {
    let cuda = match Cuda::load() {
        Ok(cuda) => cuda,
        Err(error) => return parts::trouble(error),
    };
    let path = cuda.path();
    let all = cuda
        .init()
        .and_then(|()| cuda.devices()?.into_iter().map(|d| cuda.device(d)).collect::<Result<Vec<_>, _>>());
    match all {
        Ok(devices) => json!({ "path": path, "devices": devices.iter().map(device).collect::<Vec<_>>() }),
        Err(CallFailed { call, result, words }) => {
            json!({ "path": path, "call": call, "result": result, "words": words })
        }
    }
}

fn device(device: &cuda::Device) -> Value {
    json!({ "uuid": device.uuid, "name": device.name, "memory_bytes": device.memory_bytes })
}

fn nvml_side() -> Value {
    let nvml = match Loaded::load() {
        Ok(nvml) => nvml,
        Err(LoadError::NotFound(error)) => return parts::trouble(error),
        Err(LoadError::Init(code)) => {
            return json!({ "call": "nvmlInit_v2", "result": code.0, "words": code.words() });
        }
    };
    let one = |gpu| {
        let (uuid, memory) = (nvml.text(gpu, Text::Uuid)?, nvml.memory(gpu)?);
        Ok(json!({ "uuid": uuid, "name": nvml.text(gpu, Text::Name)?, "memory_bytes": memory.total }))
    };
    let all =
        nvml.count().and_then(|count| (0..count).map(one).collect::<Result<Vec<_>, crate::nvml::Code>>());
    match all {
        Ok(devices) => json!({ "path": nvml.path(), "devices": devices }),
        Err(code) => json!({ "path": nvml.path(), "call": "NVML", "result": code.0, "words": code.words() }),
    }
}

/// In the process of its own.
pub fn look() -> Value {
    json!({ "cuda": cuda_side(), "nvml": nvml_side() })
}

/// What to do about a CUresult that a program gets.
pub fn advice(result: i64) -> &'static str {
    match result {
        2 => {
            "the VM's quota of device memory is used up, or the GPU's memory is: end programs that hold it (vgpu-smi lists them), or have the host give the VM more (--vram)"
        }
        34 => "the library is a stub: install this project's libcuda.so.1 and run ldconfig",
        100 => "libcuda found no device: it must run where /dev/vgpu is, or with VGPU_SOCKET",
        218 | 222 => {
            "the host's driver cannot compile the kernel: it is too old for this release, or too new for the GPU"
        }
        702 => "a kernel ran longer than the VM's limit: the GPU is overloaded, or the limit is too low",
        800 => "this VM is quarantined: wait until that is over, or ask the host's administrator to end it",
        802 => "the daemon does not answer, or has no worker: see its log on the host",
        803 => {
            "the library is of another release than the daemon: install the same release in the guest and on the host"
        }
        _ => "see the daemon's log on the host",
    }
}

/// A library that could not be used.
fn trouble(name: &str, said: &Value, stderr: &str) -> Option<Finding> {
    if let Some(why) = said["trouble"].as_str() {
        return Some(Finding::failed(
            format!("{name} cannot be loaded: {why}"),
            format!(
                "install this project's {name} where the dynamic loader looks (/usr/lib/x86_64-linux-gnu), and run ldconfig"
            ),
        ));
    }
    let path = said["path"].as_str().unwrap_or_default();
    let maker = Maker::of(path);
    if !path.is_empty() && maker != Maker::Ours {
        return Some(Finding::failed(
            format!("{path}, which programs get as {name}, is {}", maker.words()),
            REMOVE,
        ));
    }
    let call = said["call"].as_str()?;
    let (result, words) = (said["result"].as_i64().unwrap_or(-1), said["words"].as_str().unwrap_or_default());
    let advice = if call.starts_with("cu") { advice(result) } else { "see the daemon's log on the host" };
    Some(Finding::failed(format!("{name}: {call} answers {result} ({words}){}", parts::with(stderr)), advice))
}

/// Sorted, since the two count in different orders.
fn devices(said: &Value) -> Vec<(String, u64)> {
    let one = |device: &Value| {
        (
            device["uuid"].as_str().unwrap_or_default().to_lowercase(),
            device["memory_bytes"].as_u64().unwrap_or(0),
        )
    };
    let mut list: Vec<_> = said["devices"].as_array().into_iter().flatten().map(one).collect();
    list.sort();
    list
}

fn judge(answer: &Value, stderr: &str, visible: Option<&str>) -> Finding {
    let (cuda, nvml) = (&answer["cuda"], &answer["nvml"]);
    if let Some(found) = trouble(cuda::NAME, cuda, stderr).or_else(|| trouble(library::NAME, nvml, stderr)) {
        return found;
    }
    let (by_cuda, by_nvml) = (devices(cuda), devices(nvml));
    if by_cuda != by_nvml {
        let list = |all: &[(String, u64)]| {
            all.iter()
                .map(|(uuid, bytes)| format!("{uuid} with {} MiB", bytes >> 20))
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Finding::failed(
            format!("libcuda.so.1 has {}; libnvidia-ml.so.1 has {}", list(&by_cuda), list(&by_nvml)),
            "install both libraries of the same release, and look at the daemon's log on the host",
        );
    }
    let names: Vec<&str> =
        cuda["devices"].as_array().into_iter().flatten().filter_map(|d| d["name"].as_str()).collect();
    let note = match visible {
        Some(list) => format!("; CUDA_VISIBLE_DEVICES={list} may hide some from CUDA programs"),
        None => String::new(),
    };
    let path = |side: &Value| side["path"].as_str().unwrap_or_default().to_owned();
    Finding::Ok(format!("{} and {} agree: {}{note}", path(cuda), path(nvml), names.join(", ")))
}

/// The step.
pub fn check() -> Finding {
    let visible = std::env::var_os("CUDA_VISIBLE_DEVICES").map(|list| list.to_string_lossy().into_owned());
    match parts::ask("libraries") {
        Ok(said) => judge(&said.answer, &said.stderr, visible.as_deref()),
        Err(found) => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(answer: &Value) -> (String, String) {
        match judge(answer, "libcuda: a reason", None) {
            Finding::Failed { why, todo } => (why, todo),
            Finding::Ok(said) => panic!("{said}"),
        }
    }

    #[test]
    fn what_is_wrong_with_a_library_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("libcuda.so.1");
        std::fs::write(&ours, "VGPU_TRANSPORT").unwrap();
        let ours = ours.to_str().unwrap();
        let one = |uuid: &str, bytes: u64| json!([{ "uuid": uuid, "name": "H100", "memory_bytes": bytes }]);
        let good = json!({ "path": ours, "devices": one("GPU-1", 1 << 30) });

        let (said, todo) = why(&json!({ "cuda": parts::trouble("no such file"), "nvml": good }));
        assert!(
            said.contains("libcuda.so.1 cannot be loaded: no such file") && todo.contains("ldconfig"),
            "{said}"
        );
        let foreign = json!({ "path": "/usr/lib/cuda/stubs/libcuda.so.1", "call": "cuInit", "result": 34, "words": "" });
        let (said, todo) = why(&json!({ "cuda": foreign, "nvml": good }));
        assert!(said.contains("toolkit's stub") && todo == REMOVE, "{said}");
        let refused =
            json!({ "path": ours, "call": "cuInit", "result": 800, "words": "CUDA_ERROR_NOT_PERMITTED" });
        let (said, todo) = why(&json!({ "cuda": refused, "nvml": good }));
        assert!(said.contains("cuInit answers 800") && said.ends_with("libcuda: a reason"), "{said}");
        assert!(todo.contains("quarantined"), "{todo}");
        let (said, _) =
            why(&json!({ "cuda": good, "nvml": { "path": ours, "devices": one("GPU-2", 1 << 30) } }));
        assert!(said.contains("gpu-1 with 1024 MiB") && said.contains("gpu-2"), "{said}");
        let (said, _) =
            why(&json!({ "cuda": good, "nvml": { "path": ours, "devices": one("GPU-1", 1 << 29) } }));
        assert!(said.contains("512 MiB"), "{said}");
        let (said, _) = why(&json!({ "cuda": good, "nvml": { "path": ours, "devices": [] } }));
        assert!(said.contains("libnvidia-ml.so.1 has "), "{said}");

        let all = json!({ "cuda": good, "nvml": good });
        assert!(matches!(judge(&all, "", None), Finding::Ok(said) if said.ends_with("agree: H100")));
        assert!(matches!(judge(&all, "", Some("")), Finding::Ok(said) if said.contains("may hide")));
    }
}
