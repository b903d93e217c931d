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

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0780 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuDeviceTotalMem;

    // Refused: this device question is not carried.
    0x0781 refused "this device question is not carried" fn cuDeviceGetExecAffinitySupport;
    0x0782 refused "this device question is not carried" fn cuDeviceGetHostAtomicCapabilities;
    0x0783 refused "this device question is not carried" fn cuDeviceGetLuid;
    0x0784 refused "this device question is not carried" fn cuDeviceGetP2PAtomicCapabilities;
    0x0785 refused "this device question is not carried" fn cuDeviceGetP2PAttribute;
    0x0786 refused "this device question is not carried" fn cuDeviceGetProperties;
}
