//! Devices (CUDA Driver API, "Device Management", "Peer Context Memory Access"). All of it is known since cuInit.

use crate::types::*;

cuda_api_macros::calls! { device;
    /// A device by ordinal.
    0x0701 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGet(device: *mut CUdevice, ordinal: i32);
    /// How many devices there are.
    0x0702 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetCount(count: *mut i32);
    /// A device's name.
    0x0703 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetName(name: *mut core::ffi::c_char, len: i32, dev: CUdevice);
    /// A device's UUID.
    0x0704 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) also cuDeviceGetUuid_v2;
    /// A device's memory in bytes.
    0x0705 local "guest-driver/libcuda/src/device.rs" fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice);
    /// A device's attribute.
    0x0706 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetAttribute(pi: *mut i32, attrib: i32, dev: CUdevice);
    /// A device's PCI address as text.
    0x0707 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetPCIBusId(pciBusId: *mut core::ffi::c_char, len: i32, dev: CUdevice);
    /// A device by its PCI address.
    0x0708 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, pciBusId: *const core::ffi::c_char);
    /// A device's compute capability.
    0x0709 local "guest-driver/libcuda/src/device.rs" fn cuDeviceComputeCapability(major: *mut i32, minor: *mut i32, dev: CUdevice);
    /// Whether a device can reach another's memory.
    0x070a local "guest-driver/libcuda/src/device.rs" fn cuDeviceCanAccessPeer(canAccessPeer: *mut i32, dev: CUdevice, peerDev: CUdevice);

    /// Whether contexts can be kept to some of a device's multiprocessors: with MPS only, which is not offered.
    0x070b local "guest-driver/libcuda/src/device_links.rs" fn cuDeviceGetExecAffinitySupport(pi: *mut i32, r#type: u32, dev: CUdevice);
    /// Which atomic operations a device does natively on host memory.
    0x070c local "guest-driver/libcuda/src/device_links.rs"
        fn cuDeviceGetHostAtomicCapabilities(capabilities: *mut u32, operations: *const u32, count: u32, dev: CUdevice);
    /// … on another device's memory.
    0x070d local "guest-driver/libcuda/src/device_links.rs"
        fn cuDeviceGetP2PAtomicCapabilities(capabilities: *mut u32, operations: *const u32, count: u32, srcDevice: CUdevice,
            dstDevice: CUdevice);
    /// What the link between two devices can do.
    0x070e local "guest-driver/libcuda/src/device_links.rs"
        fn cuDeviceGetP2PAttribute(value: *mut i32, attrib: u32, srcDevice: CUdevice, dstDevice: CUdevice);
    /// Some of a device's attributes as one structure.
    0x070f local "guest-driver/libcuda/src/device_links.rs" fn cuDeviceGetProperties(prop: *mut core::ffi::c_void, dev: CUdevice);

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0780 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuDeviceTotalMem;

    // Refused: what only Windows has.
    0x0783 refused "LUIDs are Windows' own: the driver refuses this on Linux, too" fn cuDeviceGetLuid;
}
