//! Which environment variables a worker gets: a list, never "all but".

use std::ffi::OsString;

use log_limit::{LINES, LogLimit, limited};

/// For values that are left out.
static LEFT_OUT: LogLimit = LogLimit::new(LINES);

/// Longest value that is passed on, in bytes: room for a list of 32 device UUIDs.
const VALUE_BYTES_MAX: usize = 1400;

/// The guest's variables that the driver may see. CUDA_CACHE_PATH and
/// CUDA_CACHE_MAXSIZE are not among them: they are about the host's files.
const FROM_GUEST: [&str; 18] = [
    "CUDA_AUTO_BOOST",
    "CUDA_BINARY_LOADER_THREAD_COUNT",
    "CUDA_CACHE_DISABLE",
    "CUDA_DEVICE_DEFAULT_PERSISTING_L2_CACHE_PERCENTAGE_LIMIT",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_DEVICE_MAX_COPY_CONNECTIONS",
    DEVICE_ORDER,
    "CUDA_DISABLE_JIT",
    "CUDA_DISABLE_PERF_BOOST",
    "CUDA_DISABLE_PTX_JIT",
    "CUDA_FORCE_JIT",
    "CUDA_FORCE_PTX_JIT",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MANAGED_FORCE_DEVICE_ALLOC",
    "CUDA_MODULE_DATA_LOADING",
    "CUDA_MODULE_LOADING",
    "CUDA_SCALE_LAUNCH_QUEUES",
    VISIBLE_DEVICES,
];

/// The daemon's own variables that its workers inherit: how to log, and where the host keeps its driver and its cache.
const FROM_DAEMON: [&str; 8] = [
    "RUST_LOG",
    "RUST_LOG_STYLE",
    "RUST_BACKTRACE",
    "LD_LIBRARY_PATH",
    "HOME",
    "CUDA_CACHE_PATH",
    DEVICE_ORDER,
    "CUDA_MPS_PIPE_DIRECTORY",
];

/// The variable that says what a device's number means.
pub(crate) const DEVICE_ORDER: &str = "CUDA_DEVICE_ORDER";

/// The variable that selects devices.
pub(crate) const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// The variables a worker is started with.
pub(crate) fn of_daemon() -> Vec<(&'static str, OsString)> {
    FROM_DAEMON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect()
}

/// The variables of the guest's block that are passed on. `allowed` is the VM's own device list, which the guest's
/// choice can narrow and reorder but not widen.
pub(crate) fn of_guest(block: &[u8], allowed: Option<&str>) -> Vec<(String, String)> {
    let mut chosen: Vec<(String, String)> = Vec::new();
    for entry in block.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let Some((name, value)) = std::str::from_utf8(entry).ok().and_then(|entry| entry.split_once('='))
        else {
            continue;
        };
        if !FROM_GUEST.contains(&name) || chosen.iter().any(|(known, _)| known == name) {
            continue;
        }
        if value.len() > VALUE_BYTES_MAX || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        {
            limited!(LEFT_OUT, warn, "the guest's {name} is too long or not plain ASCII and is left out");
            continue;
        }
        chosen.push((name.to_owned(), value.to_owned()));
    }
    if let Some(allowed) = allowed {
        // The VM's list is in the daemon's order: under another one its numbers would be other devices.
        chosen.retain(|(name, _)| name != DEVICE_ORDER);
        let position = chosen.iter().position(|(name, _)| name == VISIBLE_DEVICES);
        let wanted = position.map(|at| chosen.swap_remove(at).1);
        let list = wanted.map_or_else(|| allowed.to_owned(), |wanted| narrow(allowed, &wanted));
        chosen.push((VISIBLE_DEVICES.to_owned(), list));
    }
    chosen
}

/// Whether the driver of a worker that was initialised without the guest's variables is as good as one that has read them.
pub(crate) fn changes_nothing(variables: &[(String, String)], allowed: Option<&str>) -> bool {
    variables.iter().all(|(name, value)| match name.as_str() {
        // The worker has the VM's own list.
        VISIBLE_DEVICES => Some(value.as_str()) == allowed,
        // What drivers do by themselves (since CUDA 12.2). PyTorch sets it in every process.
        "CUDA_MODULE_LOADING" => value == "LAZY",
        _ => false,
    })
}

/// The guest's device list, applied within the VM's. A number counts within the VM's list; anything else must be an
/// entry of it. As in CUDA, the first entry that names no device hides itself and all that follow.
fn narrow(allowed: &str, wanted: &str) -> String {
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    let entry = |wanted: &str| match wanted.parse::<usize>() {
        Ok(index) => allowed.get(index).copied(),
        Err(_) => allowed.iter().copied().find(|entry| *entry == wanted && !wanted.is_empty()),
    };
    let list: Vec<&str> = wanted.split(',').map_while(|wanted| entry(wanted.trim())).collect();
    list.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_names_pass() {
        let block =
            b"PATH=/bin\0CUDA_LAUNCH_BLOCKING=1\0LD_PRELOAD=x\0CUDA_CACHE_PATH=/etc\0CUDA_X=1\0no\0\0";
        assert_eq!(of_guest(block, None), [("CUDA_LAUNCH_BLOCKING".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn bad_values_are_left_out_and_the_first_of_a_name_counts() {
        let long = format!("CUDA_DEVICE_MAX_CONNECTIONS={}\0", "9".repeat(VALUE_BYTES_MAX + 1));
        let block =
            [long.as_bytes(), b"CUDA_DEVICE_ORDER=a\nb\0CUDA_MODULE_LOADING=LAZY\0CUDA_MODULE_LOADING=E\0"]
                .concat();
        assert_eq!(of_guest(&block, None), [("CUDA_MODULE_LOADING".to_owned(), "LAZY".to_owned())]);
    }

    #[test]
    fn an_initialised_worker_serves_guests_that_ask_for_nothing_special() {
        let serves =
            |block: &[u8], allowed: Option<&str>| changes_nothing(&of_guest(block, allowed), allowed);
        assert!(serves(b"", None) && serves(b"PATH=/bin\0CUDA_CACHE_PATH=/x\0", None));
        assert!(serves(b"CUDA_MODULE_LOADING=LAZY\0", Some("3,GPU-a")));
        assert!(serves(b"CUDA_VISIBLE_DEVICES=0,1\0", Some("3,GPU-a")));
        assert!(
            !serves(b"CUDA_VISIBLE_DEVICES=0\0", Some("3,GPU-a"))
                && !serves(b"CUDA_VISIBLE_DEVICES=\0", None)
        );
        for other in FROM_GUEST.iter().filter(|name| **name != VISIBLE_DEVICES) {
            assert!(!serves(format!("{other}=1\0").as_bytes(), None), "{other}");
        }
    }

    #[test]
    fn a_guest_cannot_widen_the_device_list() {
        let visible = |guest: &str| {
            of_guest(format!("CUDA_VISIBLE_DEVICES={guest}\0").as_bytes(), Some("3,GPU-a"))[0].1.clone()
        };
        assert_eq!(visible("0"), "3");
        assert_eq!(visible("1,0"), "GPU-a,3");
        assert_eq!(visible("GPU-a"), "GPU-a");
        assert_eq!(visible("2"), "");
        assert_eq!(visible("0,GPU-b,1"), "3");
        assert_eq!(visible(""), "");
        assert_eq!(of_guest(b"", Some("3"))[0].1, "3");
        let list = ("CUDA_VISIBLE_DEVICES".to_owned(), "3".to_owned());
        assert_eq!(of_guest(b"CUDA_DEVICE_ORDER=PCI_BUS_ID\0", Some("3")), [list]);
    }
}
