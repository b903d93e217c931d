//! Functions of the guest's in streams: their order, who waits for them, and what becomes of them when the device is lost or
//! the VM stops.

mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuda_api::calls::{memory, stream};
use cuda_api::host::Executor;
use cuda_api::types::*;
use cuda_api::{Call, CuResult};
use driver::{Guest, Pinned, session};

fn launch(guest: &mut Guest, stream: CUstream, token: u64) -> CuResult<bool> {
    guest.call::<stream::row::cuLaunchHostFunc>((stream, token))
}

fn next(guest: &mut Guest, done: u64) -> (u64, u64, u32, bool) {
    guest.call::<stream::row::vgpuNextHostFunction>((done,)).unwrap()
}

#[test]
fn a_stream_waits_for_its_function_and_others_do_not() {
    let mut guest = session(64);
    let mut service = guest.sibling(1);
    let (first, other) = (guest.stream(1, 1), guest.stream(2, 1));
    let memory = guest.alloc(64).unwrap();
    guest.write32(first, memory, 1).unwrap();
    assert_eq!(launch(&mut guest, first, 77), Ok(false));
    guest.write32(first, memory, 2).unwrap();
    let (run, token, status, gone) = next(&mut service, 0);
    assert_eq!((token, status, gone), (77, 0, false));
    // It holds its stream, and nothing else.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.query(first), Err(CUresult::NOT_READY));
    assert_eq!(guest.peek(memory, other), 1);
    guest.write32(other, memory + 8, 5).unwrap();
    guest.sync(other).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let waiting = {
        let (mut guest, ended) = (guest.sibling(2), ended.clone());
        std::thread::spawn(move || {
            let outcome = guest.sync(first);
            ended.store(true, Ordering::SeqCst);
            outcome
        })
    };
    std::thread::sleep(Duration::from_millis(20));
    assert!(!ended.load(Ordering::SeqCst));
    // The thread that serves acknowledges and waits for the next, which does not come before the pause.
    let soft = guest.soft.clone();
    let served = std::thread::spawn(move || next(&mut service, run));
    assert_eq!(waiting.join().unwrap(), Ok(()));
    assert_eq!(guest.peek(memory, other), 2);
    soft.pause(true);
    assert_eq!(served.join().unwrap(), (0, 0, 0, false));
}

#[test]
fn functions_of_a_stream_come_in_order_and_one_at_a_time() {
    let mut guest = session(64);
    let mut service = guest.sibling(1);
    let stream = guest.stream(1, 0);
    for token in 1..=100 {
        launch(&mut guest, stream, token).unwrap();
    }
    let mut done = 0;
    for token in 1..=100 {
        let (run, named, ..) = next(&mut service, done);
        assert_eq!(named, token);
        done = run;
    }
    assert_eq!(guest.query(stream), Err(CUresult::NOT_READY));
    guest.soft.pause(true);
    assert_eq!(next(&mut service, done), (0, 0, 0, false));
    guest.sync(stream).unwrap();
}

#[test]
fn acknowledgements_that_make_no_sense_change_nothing() {
    let mut guest = session(64);
    let mut service = guest.sibling(1);
    let stream = guest.stream(1, 0);
    launch(&mut guest, stream, u64::MAX).unwrap();
    let (run, token, ..) = next(&mut service, 12345);
    assert_eq!(token, u64::MAX);
    guest.soft.pause(true);
    for wrong in [0, run + 1, u64::MAX] {
        assert_eq!(next(&mut service, wrong), (0, 0, 0, false));
    }
    assert_eq!(guest.query(stream), Err(CUresult::NOT_READY));
    assert_eq!(next(&mut service, run), (0, 0, 0, false));
    guest.sync(stream).unwrap();
}

#[test]
fn a_stopped_vm_rests_although_a_function_is_in_the_guests_hands() {
    let mut guest = session(64);
    let mut service = guest.sibling(1);
    let (held, behind) = (guest.stream(1, 1), guest.stream(2, 1));
    launch(&mut guest, held, 1).unwrap();
    launch(&mut guest, held, 2).unwrap();
    let event = guest.event(1, 0);
    guest.call::<cuda_api::calls::event::row::cuEventRecord>((event, held)).unwrap();
    guest.call::<stream::row::cuStreamWaitEvent>((behind, event, 0)).unwrap();
    let (run, ..) = next(&mut service, 0);
    guest.soft.pause(true);
    let start = Instant::now();
    assert!(guest.soft.quiesce(Duration::from_secs(2)));
    assert!(start.elapsed() < Duration::from_secs(1));
    guest.soft.pause(false);
    let (run, token, ..) = next(&mut service, run);
    assert_eq!(token, 2);
    guest.soft.pause(true);
    next(&mut service, run);
    guest.sync(behind).unwrap();
    assert!(guest.soft.quiesce(Duration::from_secs(2)));
}

#[test]
fn after_a_fault_callbacks_are_told_and_functions_are_not_run() {
    let mut guest = session(64);
    let mut service = guest.sibling(1);
    let (stream, faulty) = (guest.stream(1, 1), guest.stream(2, 1));
    let word = guest.alloc(64).unwrap();
    guest.wait32(stream, word, 9).unwrap();
    launch(&mut guest, stream, 1).unwrap();
    guest.call::<stream::row::cuStreamAddCallback>((stream, 2)).unwrap();
    // A word that goes while a stream waits for it: the device faults.
    let gone = Pinned::new(4096);
    guest.soft.region_mapped(gone.address, 4096, true);
    guest.call::<memory::row::cuMemHostRegister_v2>((gone.address, 4096, 0)).unwrap();
    guest.wait32(faulty, gone.address, 9).unwrap();
    guest.soft.region_unmapping(gone.address, 4096);
    let deadline = Instant::now() + Duration::from_secs(10);
    while guest.soft.sticky() == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let sticky = guest.soft.sticky();
    assert_ne!(sticky, 0);
    // As the worker does it for this call: the fault does not keep it from being carried out.
    let id = <stream::row::vgpuNextHostFunction as Call>::ID;
    assert!(cuda_api::host::outlives_a_fault(id));
    let mut reply = Vec::new();
    let result =
        cuda_api::host::dispatch(&*guest.soft, &mut service.thread, id, &0u64.to_le_bytes(), &mut reply);
    assert_eq!(result, Ok(CUresult::SUCCESS));
    let words: Vec<u64> = reply.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    assert_eq!(words, [0, 2, u64::from(sticky), 0]);
}

#[test]
fn the_end_of_the_device_lets_the_service_go() {
    let guest = session(64);
    let mut service = guest.sibling(1);
    let serving = std::thread::spawn(move || service.call::<stream::row::vgpuNextHostFunction>((0,)));
    std::thread::sleep(Duration::from_millis(20));
    guest.soft.stop();
    assert_eq!(serving.join().unwrap(), Ok((0, 0, 0, false)));
}
