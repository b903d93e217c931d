use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

const FIRST: Viewer = Viewer { context: 1, device: 0 };

#[test]
fn memory_goes_only_after_whoever_found_it() {
    let memory = Memory::new(64 << 20).unwrap();
    let start = memory.allocate(4 << 20, Vec::new(), 1, Purpose::Memory).unwrap();
    let access = memory.access();
    let byte = access.range(start, 1, Access::Write).unwrap();
    let freed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            memory.free(&[start], &[Purpose::Memory]).unwrap();
            freed.store(true, Ordering::SeqCst);
        });
        while memory.check(start, 1, Access::Read).is_ok() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(!freed.load(Ordering::SeqCst));
        // Out of the map, and memory still: who begins now does not find it, who had found it may use it.
        assert!(memory.access().range(start, 1, Access::Read).is_err());
        // SAFETY: `access` lasts.
        unsafe { byte.write(1) };
        drop(access);
    });
    assert!(freed.load(Ordering::SeqCst));
    assert_eq!(memory.info(0), (64 << 20, 64 << 20));
}

#[test]
fn a_region_waits_for_those_who_touched_it_only() {
    let memory = Memory::new(64 << 20).unwrap();
    memory.region_mapped(0x10_0000, 0x4000, true);
    memory.register(0x10_0000, 0x4000, false).unwrap();
    let idle = memory.access();
    memory.region_unmapping(0x10_0000, 0x4000, || unreachable!("nobody uses it"));
    drop(idle);
    memory.region_mapped(0x10_0000, 0x4000, true);
    memory.register(0x10_0000, 0x4000, false).unwrap();
    let asked = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let access = memory.access();
        assert_eq!(access.find(0x10_2000, FIRST).unwrap().start, 0x10_0000);
        let going = scope.spawn(|| {
            memory.region_unmapping(0x10_0000, 0x4000, || asked.store(true, Ordering::SeqCst));
        });
        while !asked.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!going.is_finished());
        assert!(access.find(0x10_2000, FIRST).is_none());
        drop(access);
        going.join().unwrap();
    });
}

#[test]
fn parts_of_regions_come_and_go() {
    let memory = Memory::new(64 << 20).unwrap();
    memory.region_mapped(0x10_0000, 0x1000, true);
    memory.region_mapped(0x10_2000, 0x1000, true);
    assert_eq!(memory.register(0x10_0000, 0x3000, false), Err(CUresult::INVALID_VALUE), "a hole");
    memory.region_mapped(0x10_1000, 0x1000, true);
    assert_eq!(memory.register(0x10_0000, 0x3000, false), Ok(()));
    memory.region_unmapping(0x10_1000, 0x1000, || unreachable!("nobody uses it"));
    assert!(!memory.is_registered(0x10_0000));
    assert_eq!(memory.register(0x10_0000, 0x3000, false), Err(CUresult::INVALID_VALUE));
    assert_eq!(memory.register(0x10_2000, 0x1000, false), Ok(()));
    assert_eq!(memory.check(0x10_2fff, 1, Access::Write), Ok(()));
    assert_eq!(memory.check(0x10_2fff, 2, Access::Write), Err(CUresult::INVALID_VALUE));
    memory.region_mapped(u64::MAX - 10, 100, true);
    assert_eq!(memory.register(u64::MAX - 10, 5, false), Err(CUresult::INVALID_VALUE));
}

#[test]
fn another_device_s_memory_is_reached_only_where_that_was_enabled() {
    let memory =
        Memory::of_devices(64 << 20, 2, &(cuda_api::account::Alone::new(Some(64 << 20)) as Arc<dyn Account>))
            .unwrap();
    memory.add_context(1, 0);
    memory.add_context(2, 1);
    let second = Viewer { context: 2, device: 1 };
    assert_eq!(memory.viewer(2), second);
    let start = memory.allocate(4 << 20, Vec::new(), 2, Purpose::Memory).unwrap();
    assert_eq!(memory.info(0), (64 << 20, 64 << 20), "it is the second device's");
    assert!(memory.info(1).0 < 64 << 20);
    let sees = |viewer| memory.access().find(start, viewer).is_some();
    assert!(sees(second) && !sees(FIRST));
    assert_eq!(memory.reach(start, FIRST), Ok((0, 1)));
    memory.set_peer(1, 2, true).unwrap();
    assert_eq!(memory.set_peer(1, 2, true), Err(CUresult::PEER_ACCESS_ALREADY_ENABLED));
    assert!(sees(FIRST));
    assert_eq!(memory.reach(start, FIRST), Ok((ACCESS_READ_WRITE, 1)));
    memory.set_peer(1, 2, false).unwrap();
    assert_eq!(memory.set_peer(1, 2, false), Err(CUresult::PEER_ACCESS_NOT_ENABLED));
    assert!(!sees(FIRST));
    memory.set_peer(1, 2, true).unwrap();
    memory.free_context(2);
    assert_eq!(memory.info(1), (64 << 20, 64 << 20));
    assert_eq!(
        memory.set_peer(1, 2, false),
        Err(CUresult::PEER_ACCESS_NOT_ENABLED),
        "it went with the context"
    );
}
