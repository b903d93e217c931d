//! What is counted in the VM's account, against a library that stands in for the driver.

use cuda_api::calls::{entry, memory, module, texture, virtual_memory};
use cuda_api::wire::Bulk;

use super::*;
use crate::stand_in;

const MIB: usize = 1 << 20;
const QUOTA: usize = 64 << 20;
/// The device as the account has it; to the driver it is the first.
const COUNTED_AS: usize = 1;

/// An account in which the devices have another order.
struct Turned(Arc<Alone>);

impl Account for Turned {
    fn take(&self, device: usize, bytes: u64) -> bool {
        self.0.take(device, bytes)
    }

    fn add(&self, device: usize, bytes: u64) {
        self.0.add(device, bytes);
    }

    fn give_back(&self, device: usize, bytes: u64) {
        self.0.give_back(device, bytes);
    }

    fn held(&self, device: usize) -> u64 {
        self.0.held(device)
    }

    fn used(&self, device: usize) -> u64 {
        self.0.used(device)
    }

    fn quota(&self, device: usize) -> Option<u64> {
        self.0.quota(device)
    }

    fn device_of(&self, _: &[u8; 16]) -> Option<usize> {
        Some(COUNTED_AS)
    }
}

struct Scene {
    cuda: Cuda,
    thread: Thread,
    context: Arc<Context>,
    account: Arc<Alone>,
    set_empty: unsafe extern "C" fn(i32),
    set_reserved: unsafe extern "C" fn(u64),
}

impl Scene {
    fn new(name: &str) -> Self {
        let library = stand_in::library(name, include_str!("stand_in.c"));
        // SAFETY: these are their C signatures; the driver keeps the library for good.
        let (set_empty, set_reserved) =
            unsafe { (*library.get(b"set_empty\0").unwrap(), *library.get(b"set_reserved\0").unwrap()) };
        let account = Alone::new(Some(QUOTA as u64));
        let services = Services { account: Some(Arc::new(Turned(account.clone()))), ..Services::default() };
        let (cuda, thread, context) = stand_in::session(library, 1, services);
        Scene { cuda, thread, context, account, set_empty, set_reserved }
    }

    fn held(&self) -> u64 {
        assert_eq!(self.account.held(0), 0, "the device is another one to the account");
        self.account.held(COUNTED_AS) / MIB as u64
    }

    /// The driver has no more memory, or has some.
    fn set_empty(&self, is: bool) {
        // SAFETY: it stores a number.
        unsafe { (self.set_empty)(i32::from(is)) }
    }

    fn set_reserved(&self, mib: u64) {
        // SAFETY: as above.
        unsafe { (self.set_reserved)(mib << 20) }
    }
}

const FULL: CUresult = CUresult::OUT_OF_MEMORY;

fn handle<H: Handle>(index: u32) -> H {
    H::from_raw(pack_handle(H::KIND, 1, index))
}

#[test]
fn memory_counts_from_its_allocation_to_its_end() {
    let mut scene = Scene::new("plain");
    let alloc = |scene: &mut Scene, mib: usize| {
        memory::Host::cuMemAlloc_v2(&scene.cuda, &mut scene.thread, mib * MIB, &[])
    };
    let left = |scene: &mut Scene| memory::Host::cuMemGetInfo_v2(&scene.cuda, &mut scene.thread);
    let free = |scene: &mut Scene, at| memory::Host::cuMemFree_v2(&scene.cuda, &mut scene.thread, at);
    let first = alloc(&mut scene, 40).unwrap();
    assert_eq!((alloc(&mut scene, 25), scene.held()), (Err(FULL), 40));
    // The driver's own refusal takes nothing.
    scene.set_empty(true);
    assert_eq!((alloc(&mut scene, 1), scene.held()), (Err(FULL), 40));
    scene.set_empty(false);
    let second = alloc(&mut scene, 24).unwrap();
    assert_eq!(left(&mut scene), Ok((0, QUOTA)));
    free(&mut scene, first).unwrap();
    // What the device has left is less than what the VM has.
    assert_eq!(left(&mut scene), Ok((5 * MIB, QUOTA)));
    free(&mut scene, second).unwrap();
    assert_eq!(scene.held(), 0);
    // A context's memory ends with it.
    alloc(&mut scene, 10).unwrap();
    let context = scene.context.clone();
    scene.cuda.end_context(&mut scene.thread, &context, || Ok(())).unwrap();
    assert_eq!(scene.held(), 0);
}

#[test]
fn physical_memory_arrays_and_code_count_as_long_as_they_are() {
    let mut scene = Scene::new("kinds");
    let location = CUmemLocation { kind: 1, id: 0 };
    let prop = CUmemAllocationProp {
        kind: 1,
        requested_handle_types: 0,
        location,
        win32_handle_meta_data: 0,
        flags: [0; 8],
    };
    let array = CUDA_ARRAY3D_DESCRIPTOR {
        width: 1024,
        height: 1024,
        depth: 8,
        format: 0x20,
        num_channels: 1,
        flags: 0,
        reserved: 0,
    };
    let code = vec![b'.'; 6 * MIB];
    for empty in [true, false] {
        scene.set_empty(empty);
        let Scene { cuda, thread, .. } = &mut scene;
        let made = virtual_memory::Host::cuMemCreate(cuda, thread, handle(1), 16 * MIB, &prop, 0);
        let array = texture::Host::cuArray3DCreate_v2(cuda, thread, handle(1), &array);
        for (n, piece) in code.chunks(MIB).enumerate() {
            let (at, all) = ((n * MIB) as u64, code.len() as u64);
            entry::Host::vgpuImageData(cuda, thread, 1, at, all, Bulk::Inline(piece)).unwrap();
        }
        let module = module::Host::cuModuleLoadDataEx(cuda, thread, handle(1), 1, &[], 0, 0);
        let expected = if empty { Err(FULL) } else { Ok(()) };
        assert_eq!((made, array, module.unwrap().0 == 0), (expected, expected, !empty));
        assert_eq!(scene.held(), if empty { 0 } else { 16 + 32 + 6 });
    }
    let Scene { cuda, thread, .. } = &mut scene;
    let more = virtual_memory::Host::cuMemCreate(cuda, thread, handle(2), 16 * MIB, &prop, 0);
    assert_eq!(more, Err(FULL));
    virtual_memory::Host::cuMemRelease(cuda, thread, handle(1)).unwrap();
    assert_eq!(scene.held(), 32 + 6);
    let Scene { cuda, thread, .. } = &mut scene;
    texture::Host::cuArrayDestroy(cuda, thread, handle(1)).unwrap();
    module::Host::cuModuleUnload(cuda, thread, handle(1)).unwrap();
    assert_eq!(scene.held(), 0);
}

#[test]
fn pools_count_by_what_they_have_reserved() {
    let mut scene = Scene::new("pools");
    let alloc = |scene: &mut Scene, mib: usize| {
        let stream = CUstream(0);
        virtual_memory::Host::cuMemAllocAsync(
            &scene.cuda,
            &mut scene.thread,
            mib * MIB,
            CUmemoryPool(0),
            stream,
            &[],
        )
    };
    scene.set_reserved(32);
    alloc(&mut scene, 1).unwrap();
    assert_eq!(scene.held(), 32);
    // All that it has reserved may be given out; beyond that there is what the VM has left.
    assert_eq!(alloc(&mut scene, 64).map(|_| ()), Err(FULL));
    // What cuMemFree frees can be had again, whatever the driver says is used.
    scene.set_reserved(64);
    let (at, _) = alloc(&mut scene, 63).unwrap();
    assert_eq!((alloc(&mut scene, 1).map(|_| ()), scene.held()), (Err(FULL), 64));
    memory::Host::cuMemFree_v2(&scene.cuda, &mut scene.thread, at).unwrap();
    let (at, _) = alloc(&mut scene, 63).unwrap();
    memory::Host::cuMemFree_v2(&scene.cuda, &mut scene.thread, at).unwrap();
    scene.set_reserved(32);
    // It has taken more than there is: what was just allocated goes back.
    scene.set_reserved(80);
    assert_eq!(alloc(&mut scene, 10).map(|_| ()), Err(FULL));
    scene.set_reserved(2);
    assert_eq!(
        memory::Host::cuMemGetInfo_v2(&scene.cuda, &mut scene.thread).map(|(_, total)| total),
        Ok(QUOTA)
    );
    assert_eq!(scene.held(), 2);
}
