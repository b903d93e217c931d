//! Two devices of one session: what is whose, and frames that name devices that are none.

mod driver;

use std::sync::Arc;

use cuda_api::calls::{context, copy, library, virtual_memory as vmm};
use cuda_api::host::Executor;
use cuda_api::types::*;
use driver::{Guest, MIB, handle};
use executor_soft::{Soft, SoftConfig};

const BAD_DEVICES: [i32; 4] = [2, -1, i32::MAX, i32::MIN];

/// A session of two devices, each thread with its own device's primary context current.
fn both(memory_mib: u64) -> [Guest; 2] {
    let config = SoftConfig { devices: 2, memory_bytes: memory_mib << 20, ..SoftConfig::default() };
    let soft = Arc::new(Soft::new(config).unwrap());
    [0u32, 1].map(|n| {
        let mut guest = Guest::new(soft.clone(), n);
        guest.context = handle(n + 1);
        let device = i32::try_from(n).unwrap();
        guest.bare::<context::row::cuDevicePrimaryCtxRetain>(0, (handle(n + 1), device, 0)).unwrap();
        guest
    })
}

#[test]
fn devices_are_told_apart_and_linked() {
    let [a, _] = both(64);
    let info = a.soft.vm_info();
    assert_eq!(info.devices.len(), 2);
    let [first, second] = &info.devices[..] else { unreachable!() };
    assert_ne!(first.uuid, second.uuid);
    assert_ne!(first.attribute(34), second.attribute(34));
    assert!(first.links[1].can_access && second.links[0].can_access && !first.links[0].can_access);
}

#[test]
fn each_device_has_its_own_memory_and_copies_go_between() {
    let [mut a, mut b] = both(64);
    let before = (a.left(), b.left());
    let there = b.alloc(16 * MIB).unwrap();
    assert_eq!(a.left(), before.0);
    assert!(b.left() <= before.1 - 16 * MIB);
    let here = a.alloc(16 * MIB).unwrap();
    b.call::<copy::row::cuMemsetD32_v2>((there, 7, 4 * MIB)).unwrap();
    let (mine, theirs) = (a.context, b.context);
    a.call::<copy::row::cuMemcpyPeer>((here, mine, there, theirs, 16 * MIB)).unwrap();
    a.call::<copy::row::cuMemcpyDtoD_v2>((there, here, 16 * MIB)).unwrap();
    let wrong = a.call::<copy::row::cuMemcpyPeer>((here, mine, there, handle(9), 16));
    assert_eq!(wrong, Err(CUresult::INVALID_CONTEXT));
    // NULL for a context: the addresses say where the memory lies.
    a.call::<copy::row::cuMemcpyPeer>((here, mine, there, CUcontext::NULL, 16)).unwrap();
    a.call::<copy::row::cuMemcpyPeer>((there, CUcontext::NULL, here, CUcontext::NULL, 16)).unwrap();
    a.free(there).unwrap();
    assert_eq!(b.left(), before.1, "freed from the other device's context");
}

#[test]
fn a_context_ends_alone() {
    let [mut a, mut b] = both(64);
    let kept = a.alloc(MIB).unwrap();
    let gone = b.alloc(MIB).unwrap();
    let (mine, theirs) = (a.context, b.context);
    a.call::<context::row::cuCtxEnablePeerAccess>((theirs, 0)).unwrap();
    let twice = a.call::<context::row::cuCtxEnablePeerAccess>((theirs, 0));
    assert_eq!(twice, Err(CUresult::PEER_ACCESS_ALREADY_ENABLED));
    let own = a.call::<context::row::cuCtxEnablePeerAccess>((mine, 0));
    assert_eq!(own, Err(CUresult::PEER_ACCESS_UNSUPPORTED));
    let mixed = a.call::<context::row::cuDevicePrimaryCtxReset_v2>((theirs, 0));
    assert_eq!(mixed, Err(CUresult::INVALID_CONTEXT), "it is the other device's");
    a.call::<context::row::cuDevicePrimaryCtxReset_v2>((theirs, 1)).unwrap();
    assert_eq!(a.call::<copy::row::cuMemsetD8_v2>((gone, 0, 1)), Err(CUresult::INVALID_VALUE));
    a.call::<copy::row::cuMemsetD8_v2>((kept, 0, 1)).unwrap();
    let no_longer = a.call::<context::row::cuCtxDisablePeerAccess>((theirs,));
    assert_eq!(no_longer, Err(CUresult::CONTEXT_IS_DESTROYED));
}

#[test]
fn devices_that_are_none_are_refused() {
    let [mut a, _] = both(64);
    for bad in BAD_DEVICES {
        let retained = a.call::<context::row::cuDevicePrimaryCtxRetain>((handle(7), bad, 0));
        assert_eq!(retained, Err(CUresult::INVALID_DEVICE), "{bad}");
        assert_eq!(
            a.call::<context::row::cuCtxCreate_v2>((handle(7), 0, bad)),
            Err(CUresult::INVALID_DEVICE)
        );
        let released = a.call::<context::row::cuDevicePrimaryCtxRelease_v2>((handle(1), bad));
        assert_eq!(released, Err(CUresult::INVALID_DEVICE));
        let pool = a.call::<vmm::row::cuDeviceGetDefaultMemPool>((handle(1), bad));
        assert_eq!(pool, Err(CUresult::INVALID_DEVICE));
        let config = a.call::<library::row::cuKernelSetCacheConfig>((handle(1), 0, bad));
        assert_eq!(config, Err(CUresult::INVALID_DEVICE));
        let location = CUmemLocation { kind: 1, id: bad };
        let access = a.call::<vmm::row::cuMemGetAccess>((&location, 0x1000));
        assert_eq!(access, Err(CUresult::INVALID_DEVICE));
    }
}
