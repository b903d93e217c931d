//! For tests: libraries of a few lines of C that stand in for the driver.

use std::process::Command;
use std::sync::Arc;

use cuda_api::info::{DeviceInfo, VmInfo};
use libloading::os::unix::Library;

use crate::context::Context;
use crate::driver::Driver;
use crate::{Config, Cuda, Services, Started, Thread};

/// A driver of this source, compiled by gcc, which stays loaded.
pub(crate) fn library(name: &str, source: &str) -> Library {
    let folder = std::env::temp_dir().join(format!("executor-cuda-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, built) = (folder.join("stand_in.c"), folder.join("stand_in.so"));
    std::fs::write(&file, source).unwrap();
    let made = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).args([&built, &file]).status();
    assert!(made.expect("gcc starts").success());
    // SAFETY: these sources have no initialisers.
    let library = unsafe { Library::new(&built) }.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    library
}

/// A session with so many devices, and a thread with a context on the last of them current.
pub(crate) fn session(library: Library, devices: u8, services: Services) -> (Cuda, Thread, Arc<Context>) {
    let driver: &'static Driver = Box::leak(Box::new(Driver::new(library)));
    let device = |number| DeviceInfo {
        name: "a GPU".into(),
        uuid: [number; 16],
        total_memory_bytes: 1 << 40,
        attributes: Vec::new(),
        links: Vec::new(),
    };
    let devices: Vec<DeviceInfo> = (1..=devices).map(device).collect();
    let last = i32::try_from(devices.len()).unwrap() - 1;
    let info = VmInfo { driver_version: 13_000, stream_priorities: (0, 0), devices };
    let cuda = Cuda::new(Started { driver, info, config: Config::default() }, services);
    let context = Arc::new(Context::new(driver, 7, 1, last, true));
    crate::session::contexts_mut(&cuda).add(context.clone());
    let mut thread = Thread::new(driver, 0);
    thread.bind(Some(context.clone())).unwrap();
    (cuda, thread, context)
}
