//! Against a library that stands in for the host's NVML.

use std::process::Command;

use cuda_api::info::Link;

use super::*;

fn stand_in() -> Library {
    let folder = std::env::temp_dir().join(format!("executor-cuda-nvml-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, built) = (folder.join("stand_in.c"), folder.join("stand_in.so"));
    std::fs::write(&source, include_str!("stand_in.c")).unwrap();
    let made = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).args([&built, &source]).status();
    assert!(made.expect("gcc starts").success());
    // SAFETY: it has no initialisers.
    let library = unsafe { Library::new(&built) }.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    library
}

#[test]
fn what_can_be_read_is_and_the_rest_is_left_out() {
    let device = |uuid: &[u8; 16]| DeviceInfo {
        name: "a GPU".into(),
        uuid: *uuid,
        total_memory_bytes: 900,
        attributes: Vec::new(),
        links: vec![Link::NONE; 2],
    };
    // The first one is none that NVML knows.
    let devices = vec![device(b"________________"), device(b"0123456789abcdef")];
    let info = VmInfo { driver_version: 13_000, stream_priorities: (0, 0), devices };
    let nvml = Nvml::with(stand_in(), &info).unwrap();
    let readings = nvml.read();
    assert_eq!(readings.release, "580.65.06");
    assert_eq!(readings.devices.len(), 2);
    assert!(readings.devices[0].is_empty());
    let expected = [
        (number::MEMORY_TOTAL, 1000),
        (number::MEMORY_FREE, 600),
        (number::MEMORY_USED, 300),
        (number::MEMORY_RESERVED, 100),
        (number::GPU_PERCENT, 98),
        (number::MEMORY_PERCENT, 7),
        (number::TEMPERATURE, 41),
        (number::ENERGY_MJ, 1 << 40),
        (number::CLOCK_MHZ, 1000),
        (number::CLOCK_MHZ + 1, 1001),
        (number::CLOCK_MHZ + 2, 1002),
        (number::CLOCK_MHZ + 3, 1003),
        (number::process(4711), 1 << 33),
        (number::nvlink(2, NvLink::State), 1),
        (number::nvlink(2, NvLink::Capabilities), 0b101),
        (number::nvlink(2, NvLink::Remote), 1 << 32 | 0xc1 << 8 | 3),
        (number::nvlink(2, NvLink::RemoteKind), 2),
    ];
    assert_eq!(readings.devices[1], BTreeMap::from(expected));
}
