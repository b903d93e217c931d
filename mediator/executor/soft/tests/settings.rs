//! Stream attributes, batches of stream memory operations, contexts' settings, the lists of kernels, and the linker.

mod driver;

use cuda_api::calls::{context, entry, library, module, stream};
use cuda_api::types::*;
use driver::{Guest, MIB, handle, session};

const PTX: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry second(.param .u64 out) {
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd2, %rd1;
    st.global.u32 [%rd2], 7;
    ret;
}
.visible .entry first() {
    ret;
}
";

fn get(guest: &mut Guest, stream: CUstream, attribute: u32) -> Result<Vec<u8>, CUresult> {
    guest.call::<stream::row::cuStreamGetAttribute>((stream, attribute))
}

fn set(guest: &mut Guest, stream: CUstream, attribute: u32, value: &[u8]) -> Result<(), CUresult> {
    guest.call::<stream::row::cuStreamSetAttribute>((stream, attribute, value))
}

#[test]
fn a_stream_keeps_its_attributes() {
    let mut guest = session(64);
    let (a, b) = (guest.stream(1, 0), guest.stream(2, 1));
    assert_eq!(get(&mut guest, a, 3), Ok(1u32.to_ne_bytes().to_vec()));
    assert_eq!(set(&mut guest, a, 3, &2u32.to_ne_bytes()), Ok(()));
    assert_eq!(set(&mut guest, a, 10, &1u32.to_ne_bytes()), Ok(()));
    assert_eq!(set(&mut guest, a, 8, &(-1000i32).to_ne_bytes()), Ok(()));
    let priority = get(&mut guest, a, 8).unwrap();
    assert_ne!(priority, (-1000i32).to_ne_bytes(), "within the device's range");
    assert_eq!(guest.call::<stream::row::cuStreamCopyAttributes>((b, a)), Ok(()));
    assert_eq!(get(&mut guest, b, 3), Ok(2u32.to_ne_bytes().to_vec()));
    assert_eq!(get(&mut guest, b, 8), Ok(priority));
    for (attribute, value) in
        [(3, &[9u8, 0, 0, 0][..]), (3, &[1]), (2, &[1, 0, 0, 0]), (99, &[0; 4]), (9, &[7, 7])]
    {
        assert_eq!(
            set(&mut guest, a, attribute, value),
            Err(CUresult::INVALID_VALUE),
            "{attribute} {value:?}"
        );
    }
    assert_eq!(get(&mut guest, a, 2), Err(CUresult::INVALID_VALUE));
    assert_eq!(get(&mut guest, handle(9), 3), Err(CUresult::INVALID_HANDLE));
}

#[test]
fn an_access_policy_window_lies_in_the_sessions_memory() {
    let mut guest = session(64);
    let stream = guest.stream(1, 0);
    let memory = guest.alloc(MIB).unwrap();
    let window = |address: u64, len: u64| {
        let mut bytes = [0u8; 32];
        bytes[..8].copy_from_slice(&address.to_ne_bytes());
        bytes[8..16].copy_from_slice(&len.to_ne_bytes());
        bytes
    };
    assert_eq!(set(&mut guest, stream, 1, &window(memory, MIB as u64)), Ok(()));
    assert_eq!(get(&mut guest, stream, 1), Ok(window(memory, MIB as u64).to_vec()));
    for (address, len) in [(memory, MIB as u64 + 1), (memory - 1, 8), (0x1000, 8), (memory, u64::MAX)] {
        let outcome = set(&mut guest, stream, 1, &window(address, len));
        assert_eq!(outcome, Err(CUresult::INVALID_VALUE), "{address:#x} {len}");
    }
    assert_eq!(set(&mut guest, stream, 1, &window(0, 0)), Ok(()));
}

fn batch(operations: &[[u64; 4]]) -> Vec<u8> {
    operations.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_batch_is_carried_out_in_order_or_not_at_all() {
    let mut guest = session(64);
    let (stream, other) = (guest.stream(1, 1), guest.stream(2, 1));
    let at = guest.alloc(64).unwrap();
    guest.put(at, &[0; 64]).unwrap();
    let operations = batch(&[[2, at, 5, 0], [4, at + 16, 9, 1], [6, 0, 0, 0], [5, at + 8, 1 << 40, 0]]);
    assert_eq!(guest.call::<stream::row::cuStreamBatchMemOp_v2>((stream, &operations, 0)), Ok(()));
    driver::eventually("the first word", || guest.peek(at, other) == 5);
    assert_eq!(guest.query(stream), Err(CUresult::NOT_READY), "it waits for the second");
    assert_eq!(guest.peek(at + 8, other), 0);
    guest.call::<stream::row::cuStreamWriteValue64_v2>((other, at + 16, 9, 0)).unwrap();
    guest.sync(stream).unwrap();
    assert_eq!(guest.get(at + 8, 8).unwrap(), (1u64 << 40).to_le_bytes());
    let refused = [
        batch(&[[2, at, 6, 0], [2, at + 64, 1, 0]]),
        batch(&[[2, at, 6, 0], [2, at + 2, 1, 0]]),
        batch(&[[2, at, 6, 0], [1, at, 1, 4]]),
        batch(&[[2, at, 6, 0], [7, at, 1, 0]]),
        batch(&[[2, at, 6, 0], [2, at, 1 << 32, 0]]),
        batch(&[[2, at, 6, 0], [2, at, 6, 1 << 32]]),
        batch(&[[2, at, 6, 0]])[..31].to_vec(),
        batch(&[[2, at, 6, 0]; 257]),
    ];
    for operations in refused {
        let outcome = guest.call::<stream::row::cuStreamBatchMemOp_v2>((stream, &operations, 0));
        assert_eq!(outcome, Err(CUresult::INVALID_VALUE));
    }
    guest.sync(stream).unwrap();
    assert_eq!(guest.word(at), 5, "nothing of a refused batch was done");
}

#[test]
fn settings_of_a_context() {
    let mut guest = session(64);
    assert_eq!(guest.call::<context::row::cuCtxSetFlags>((8 | 4,)), Ok(()));
    assert_eq!(guest.call::<context::row::cuCtxSetFlags>((3,)), Err(CUresult::INVALID_VALUE));
    assert_eq!(guest.call::<context::row::cuCtxSetSharedMemConfig>((2,)), Ok(()));
    assert_eq!(guest.call::<context::row::cuCtxGetSharedMemConfig>(()), Ok(1));
    assert_eq!(guest.call::<context::row::cuCtxSetSharedMemConfig>((3,)), Err(CUresult::INVALID_VALUE));
    assert_eq!(guest.call::<entry::row::cuProfilerStart>(()), Ok(()));
    assert_eq!(guest.call::<entry::row::cuProfilerStop>(()), Ok(()));
    assert_eq!(guest.bare::<entry::row::cuProfilerStop>(0, ()), Err(CUresult::INVALID_CONTEXT));
    assert_eq!(guest.call::<context::row::cuDeviceGetDevResource>((0, 1)), Err(CUresult::NOT_SUPPORTED));
}

#[test]
fn kernels_are_listed_in_the_texts_order() {
    let mut guest = session(64);
    guest.image(1, PTX.as_bytes()).unwrap();
    let loaded = guest.call::<library::row::cuLibraryLoadData>((handle(1), 1, &[], 0, 0)).unwrap();
    assert_eq!(loaded.0, 0);
    let names =
        |guest: &mut Guest, first| guest.call::<library::row::cuLibraryEnumerateKernels>((handle(1), first));
    assert_eq!(names(&mut guest, 0), Ok(b"second\0first\0".to_vec()));
    assert_eq!(names(&mut guest, 1), Ok(b"first\0".to_vec()));
    assert_eq!(names(&mut guest, 2), Ok(Vec::new()));
    assert_eq!(names(&mut guest, u32::MAX), Ok(Vec::new()));
    guest.call::<library::row::cuLibraryGetModule>((handle(2), handle(1))).unwrap();
    let listed = guest.call::<module::row::cuModuleEnumerateFunctions>((handle(2), 1));
    assert_eq!(listed, Ok(b"first\0".to_vec()));
}

#[test]
fn one_text_is_linked_to_itself() {
    let mut guest = session(64);
    let link: CUlinkState = handle(1);
    guest.call::<module::row::cuLinkCreate_v2>((link, &[], 100, 100)).unwrap();
    let complete = |guest: &mut Guest| guest.call::<module::row::cuLinkComplete>((link,));
    assert_eq!(complete(&mut guest).map(|c| c.0), Err(CUresult::INVALID_IMAGE), "nothing was added");
    let add = |guest: &mut Guest, kind, image| {
        guest.call::<module::row::cuLinkAddData_v2>((link, kind, image, c"a", &[])).unwrap()
    };
    guest.image(1, b".version 8.0\n.target sm_80\n.address_size 64\nnonsense").unwrap();
    let (result, _, log) = add(&mut guest, 1, 1);
    assert_eq!(result, CUresult::INVALID_PTX.0);
    assert!(!log.is_empty() && log.len() <= 100);
    guest.image(2, PTX.as_bytes()).unwrap();
    assert_eq!(add(&mut guest, 0, 2).0, CUresult::NO_BINARY_FOR_GPU.0);
    let image = |guest: &mut Guest, at| guest.call::<module::row::vgpuLinkedImage>((link, at));
    assert_eq!(add(&mut guest, 1, 2).0, 0);
    assert_eq!(image(&mut guest, 0), Err(CUresult::INVALID_VALUE), "it is not complete");
    guest.image(3, PTX.as_bytes()).unwrap();
    assert_eq!(add(&mut guest, 1, 3).0, CUresult::NOT_SUPPORTED.0, "there is nothing to link it with");
    let (result, bytes, ..) = complete(&mut guest).unwrap();
    assert_eq!((result, bytes), (0, PTX.len() as u64 + 1));
    let linked = image(&mut guest, 0).unwrap();
    assert_eq!(linked, [PTX.as_bytes(), &[0]].concat());
    assert_eq!(image(&mut guest, bytes - 1), Ok(vec![0]));
    assert_eq!(image(&mut guest, bytes + 1), Err(CUresult::INVALID_VALUE));
    assert_eq!(add(&mut guest, 1, 3).0, CUresult::INVALID_VALUE.0, "it is complete");
    guest.image(4, &linked).unwrap();
    assert_eq!(guest.call::<module::row::cuModuleLoadDataEx>((handle(5), 4, &[], 0, 0)).unwrap().0, 0);
    assert_eq!(guest.call::<module::row::cuLinkDestroy>((link,)), Ok(()));
    assert_eq!(guest.call::<module::row::cuLinkDestroy>((link,)), Err(CUresult::INVALID_HANDLE));
}
