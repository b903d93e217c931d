use cuda_api::host::Access::{Read, Write};

use super::*;

const BAD: CuResult<()> = Err(CUresult::INVALID_VALUE);

fn memory() -> Memory<u8> {
    Memory::new()
}

#[test]
fn a_range_lies_in_one_allocation() {
    let memory = memory();
    memory.add_device(0x1000, 0x100, 1, 0).unwrap();
    memory.add_device(0x1100, 0x100, 1, 0).unwrap();
    assert_eq!(memory.check(0x1000, 0x100, Write), Ok(()));
    assert_eq!(memory.check(0x10ff, 1, Read), Ok(()));
    assert_eq!(memory.check(0x1000, 0x101, Read), BAD);
    assert_eq!(memory.check(0xfff, 2, Read), BAD);
    assert_eq!(memory.check(0x1200, 1, Read), BAD);
    assert_eq!(memory.check(0x1080, u64::MAX, Read), BAD);
    assert_eq!(memory.check(0x9999, 0, Read), Ok(()));
    assert_eq!(memory.add_device(0x10f0, 0x20, 1, 0), BAD);
    assert_eq!(memory.remove_device(0x1001), BAD.map(|()| (0, 0)));
    assert_eq!(memory.remove_device(0x1000), Ok((0x100, 0)));
    assert_eq!(memory.check(0x1000, 1, Read), BAD);
}

#[test]
fn a_context_takes_its_memory_along() {
    let memory = memory();
    memory.add_device(0x1000, 0x100, 1, 0).unwrap();
    memory.add_device(0x2000, 0x200, 2, 0).unwrap();
    memory.add_device(0x3000, 0x400, 1, 0).unwrap();
    memory.add_variable(0x4000, 4, 7, 1).unwrap();
    assert_eq!(memory.forget_context(1), 0x200 + 0x400, "in pieces of 512 bytes");
    assert_eq!(memory.check(0x4000, 4, Read), BAD);
    assert_eq!(memory.check(0x3000, 1, Read), BAD);
    assert_eq!(memory.check(0x2000, 0x200, Read), Ok(()));
}

#[test]
fn variables_go_with_their_owner_and_can_be_asked_for_twice() {
    let memory = memory();
    memory.add_variable(0x1000, 4, 7, 1).unwrap();
    memory.add_variable(0x1000, 4, 7, 1).unwrap();
    assert_eq!(memory.add_variable(0x1000, 4, 8, 1), BAD);
    assert_eq!(memory.remove_device(0x1000), BAD.map(|()| (0, 0)));
    assert_eq!(memory.check(0x1000, 4, Write), Ok(()));
    memory.forget_variables(7);
    assert_eq!(memory.check(0x1000, 4, Write), BAD);
}

#[test]
fn only_mapped_guest_memory_is_registered() {
    let memory = memory();
    memory.add_region(0x10000, 0x1000, true);
    memory.add_region(0x11000, 0x1000, true);
    memory.add_region(0x20000, 0x1000, false);
    assert_eq!(memory.region(0x10000, 0x2000), Ok(true));
    assert_eq!(memory.region(0x10010, 0x1ff0), Ok(true));
    assert_eq!(memory.region(0x10010, 0x2000), Err(CUresult::INVALID_VALUE));
    assert_eq!(memory.region(0x20000, 0x1000), Ok(false));
    memory.add_registered(0x10010, 0x100, false).unwrap();
    memory.add_registered(0x20000, 0x1000, true).unwrap();
    assert!(memory.is_host(0x10010) && !memory.is_host(0x1000f));
    assert_eq!(memory.check(0x20000, 0x1000, Read), Ok(()));
    assert_eq!(memory.check(0x20000, 0x1000, Write), BAD);
    assert_eq!(memory.remove_registered(0x20004), Err(CUresult::HOST_MEMORY_NOT_REGISTERED));
    assert_eq!(memory.remove_registered(0x20000), Ok(()));
    assert_eq!(memory.remove_region(0x10000, 0x2000), [0x10010]);
    assert_eq!(memory.region(0x10000, 1), Err(CUresult::INVALID_VALUE));
    assert_eq!(memory.check(0x10010, 1, Read), BAD);
}

#[test]
fn mappings_that_follow_one_another_are_one_range() {
    let memory = memory();
    memory.add_reserved(0x10_0000, 0x10_0000).unwrap();
    assert_eq!(memory.check_reserved(0x10_0000, 0x10_0000), Ok(()));
    assert_eq!(memory.check_reserved(0x10_0000, 0x10_0001), BAD);
    memory.add_mapped(0x10_0000, 0x1000, 1).unwrap();
    memory.add_mapped(0x10_1000, 0x1000, 2).unwrap();
    assert_eq!(memory.check(0x10_0000, 1, Read), BAD);
    memory.set_access(0x10_0000, 0x1000, 0, cuda_api::access::ACCESS_READ_WRITE);
    memory.set_access(0x10_1000, 0x1000, 0, cuda_api::access::ACCESS_READ);
    assert_eq!(memory.check(0x10_0800, 0x1000, Read), Ok(()));
    assert_eq!(memory.check(0x10_0800, 0x1000, Write), BAD);
    assert_eq!(memory.check(0x10_1800, 0x1000, Read), BAD);
    assert_eq!(memory.check_mapped(0x10_0000, 0x2000), Ok(()));
    assert_eq!(memory.check_mapped(0x10_0000, 0x1800), BAD);
    for (start, len) in [(0x10_0000, 0x1000), (0x10_0000, 0x8000), (0x10_2000, 0x1000), (0x10_1000, 0x3000)] {
        assert_eq!(memory.check_uncut(start, len), Ok(()), "{start:#x}+{len:#x}");
    }
    for (start, len) in [(0x10_0000, 0x1800), (0x10_0800, 0x800), (0x10_0800, 0x8000), (0x10_1200, 0x100)] {
        assert_eq!(memory.check_uncut(start, len), BAD, "{start:#x}+{len:#x}");
    }
    assert_eq!(memory.remove_reserved(0x10_0000, 0x10_0000), BAD);
    assert_eq!(memory.remove_mapped(0x10_0000, 0x2000), [1, 2]);
    assert_eq!(memory.remove_reserved(0x10_0000, 0x8000), BAD);
    assert_eq!(memory.remove_reserved(0x10_0000, 0x10_0000), Ok(()));
    assert_eq!(memory.check_reserved(0x10_0000, 1), BAD);
}

#[test]
fn a_pool_s_memory_is_there_until_it_is_freed_and_belongs_to_no_context() {
    let memory = memory();
    memory.add_pooled(0x1000, 0x100, Giver::Pool(5)).unwrap();
    assert_eq!(memory.check(0x1000, 0x100, Write), Ok(()));
    assert_eq!((memory.pooled_bytes(5), memory.pooled_bytes(6)), (512, 0));
    assert_eq!(memory.forget_context(1), 0);
    assert_eq!(memory.freed_kind(0x1000), Ok(FreedKind::Pooled));
    assert_eq!(memory.freed_kind(0x1008), Err(CUresult::INVALID_VALUE));
    assert_eq!(memory.remove_device(0x1000), Err(CUresult::INVALID_VALUE));
    assert_eq!(memory.add_pooled(0x1080, 8, Giver::Pool(5)), BAD, "not while it is allocated");
    assert_eq!((memory.remove_pooled(0x1000), memory.pooled_bytes(5)), (Ok((0x100, 5)), 0));
    assert_eq!(memory.check(0x1000, 1, Read), BAD);
    assert_eq!(memory.freed_kind(0x1000), Err(CUresult::INVALID_VALUE));
}

#[test]
fn a_graph_s_memory_gives_way_to_what_the_driver_puts_there() {
    let memory = memory();
    memory.add_pooled(0x1000, 0x1000, Giver::Graph(7)).unwrap();
    memory.add_pooled(0x2000, 0x1000, Giver::Graph(8)).unwrap();
    assert_eq!(memory.freed_kind(0x1000), Ok(FreedKind::Graph));
    assert_eq!((memory.graph_bytes(7), memory.graph_bytes(9), memory.has_graph_memory()), (0x1000, 0, true));
    memory.add_pooled(0x1800, 0x100, Giver::Pool(5)).unwrap();
    assert_eq!(memory.check(0x1000, 1, Read), BAD);
    assert_eq!(memory.check(0x1800, 0x100, Write), Ok(()));
    assert_eq!(memory.check(0x2000, 0x1000, Write), Ok(()));
}

#[test]
fn only_mappings_have_access_to_ask_for() {
    let memory = memory();
    memory.add_device(0x1000, 0x100, 1, 0).unwrap();
    memory.add_reserved(0x10_0000, 0x10_0000).unwrap();
    memory.add_mapped(0x10_0000, 0x1000, 1).unwrap();
    assert_eq!(memory.check_in_mapping(0x10_0fff), Ok(()));
    assert_eq!(memory.check_in_mapping(0x10_1000), BAD);
    assert_eq!(memory.check_in_mapping(0x1000), BAD);
}

#[test]
fn managed_variables_go_with_their_owner_and_libraries_are_asked_about_after_any_context() {
    let memory = memory();
    memory.add_managed(0x1000, 0x10, 7, Some(1)).unwrap();
    memory.add_managed(0x1000, 0x10, 7, Some(1)).unwrap();
    assert_eq!(memory.add_managed(0x1008, 0x10, 7, Some(1)), BAD);
    assert_eq!(memory.add_managed(0x1000, 0x10, 8, Some(1)), BAD, "another's");
    memory.add_managed(0x2000, 0x10, 8, Some(2)).unwrap();
    memory.add_managed(0x3000, 0x10, 9, None).unwrap();
    assert_eq!(memory.check(0x1000, 0x10, Write), Ok(()));
    assert_eq!(memory.check(0x1000, 0x11, Read), BAD);
    assert!(memory.is_host(0x100f) && !memory.is_host(0x1010));
    // They are no memory that a guest could free.
    assert_eq!(memory.freed_kind(0x1000), Err(CUresult::INVALID_VALUE));
    assert_eq!(memory.remove_registered(0x1000), Err(CUresult::HOST_MEMORY_NOT_REGISTERED));
    let mut gone = Vec::new();
    assert_eq!(memory.remove_managed_of(1, |at| gone.push(at)), [(0x3000, 0x10, 9)]);
    assert_eq!(gone, [0x1000, 0x3000]);
    assert_eq!(memory.check(0x3000, 1, Read), BAD);
    assert_eq!(memory.remove_managed(7), []);
    assert_eq!(memory.remove_managed(8), [0x2000]);
    assert_eq!(memory.check(0x2000, 1, Read), BAD);
}
