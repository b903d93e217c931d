//! The register block.

use pci_layout::{ABI_VERSION, control, ids, regs};
use proptest::prelude::*;

use super::fake::{Guest, message, open_body};
use crate::Front;

fn read_u32(guest: &Guest, register: u32) -> u32 {
    let mut bytes = [0; 4];
    guest.device.registers().read(register.into(), &mut bytes);
    u32::from_le_bytes(bytes)
}

#[test]
fn identity_is_where_the_layout_says() {
    let guest = Guest::new(Front::Queues);
    assert_eq!(read_u32(&guest, regs::POOL_ID), u32::from(b'B'));
    assert_eq!(read_u32(&guest, regs::PRIORITY), regs::PRIORITY_HIGH);
    assert_eq!(read_u32(&guest, regs::VM_ID), 7);
    assert_eq!(read_u32(&guest, regs::PROTOCOL_VER), ABI_VERSION);
    assert_eq!(read_u32(&guest, regs::CAPABILITIES), regs::CAP_MAP_GUEST_PAGES);
    assert_eq!(read_u32(&guest, regs::QUEUES), 2);
    assert_eq!(read_u32(&guest, regs::SESSION_LIMIT), 128);
    assert_eq!(read_u32(&guest, regs::DEVICE_COUNT), 2);
    let mut bytes = [0; 8];
    guest.device.registers().read(regs::MAGIC.into(), &mut bytes);
    assert_eq!(bytes, ids::TAG);
    guest.device.registers().read(regs::VRAM_QUOTA.into(), &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 16 << 30);
    guest.device.registers().set_share(regs::PRIORITY_LOW, 8 << 30);
    assert_eq!(read_u32(&guest, regs::PRIORITY), regs::PRIORITY_LOW);
    guest.device.registers().read(regs::VRAM_QUOTA.into(), &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 8 << 30);
    let mut bytes = [0; 16];
    guest.device.registers().read(regs::TABLE_FINGERPRINT.into(), &mut bytes);
    assert_eq!(&bytes, b"fingerprint 16 b");
}

#[test]
fn status_follows_requests() {
    let guest = Guest::booted();
    assert_eq!(read_u32(&guest, regs::STATUS), regs::STATUS_IDLE);
    *guest.fake.hold.lock().unwrap() = true;
    let _answers = guest.send(&message(control::OPEN_SESSION, 0x1234, 0, &open_body(b"")), 4096);
    assert_eq!(read_u32(&guest, regs::STATUS), regs::STATUS_BUSY);
    guest.fake.release()(Ok(()));
    assert_eq!(read_u32(&guest, regs::STATUS), regs::STATUS_DONE);
    assert_eq!(read_u32(&guest, regs::SESSIONS_OPEN), 1);
    assert_eq!(read_u32(&guest, regs::REQUEST_ID), 0x1234);
    let time = |guest: &Guest| {
        u64::from(read_u32(guest, regs::TIMESTAMP_HI)) << 32 | u64::from(read_u32(guest, regs::TIMESTAMP_LO))
    };
    let before = time(&guest);
    assert_ne!(before, 0);
    guest.ask(control::CLOSE_SESSION, 9, &[0; 8]);
    assert!(time(&guest) > before);
    assert_eq!(read_u32(&guest, regs::STATUS), regs::STATUS_ERROR);
    assert_eq!(read_u32(&guest, regs::ERROR_CODE), regs::ERROR_INVALID_REQUEST);
}

#[test]
fn only_scratch_keeps_what_is_written() {
    let guest = Guest::new(Front::Queues);
    let before = guest.device.registers().block();
    guest.device.registers().write(0, &[0xee; 256]);
    let after = guest.device.registers().block();
    let scratch = regs::SCRATCH as usize..regs::SCRATCH as usize + 4;
    assert_eq!(after[scratch.clone()], [0xee; 4]);
    assert_eq!(after[..scratch.start], before[..scratch.start]);
    assert_eq!(after[scratch.end..], before[scratch.end..]);
    guest.device.registers().write(u64::from(regs::SCRATCH) + 2, &[1, 2, 3, 4]);
    assert_eq!(guest.device.registers().block()[scratch], [0xee, 0xee, 1, 2]);
}

#[test]
fn block_read_through_the_queue_is_the_same() {
    let guest = Guest::booted();
    guest.device.registers().write(regs::SCRATCH.into(), b"hey!");
    let read = guest.ask(control::READ_REGS, 0, &[]).body;
    assert_eq!(read[regs::SCRATCH as usize..][..4], *b"hey!");
    assert_eq!(read, guest.device.registers().block(), "reading leaves no trace");
}

proptest! {
    #[test]
    fn any_access_is_bounded(offset in prop_oneof![0u64..400, any::<u64>()], len in 0usize..600, byte: u8) {
        let guest = Guest::new(Front::Queues);
        let block = guest.device.registers().block();
        let mut read = vec![0xaa; len];
        guest.device.registers().read(offset, &mut read);
        for (index, byte) in read.iter().enumerate() {
            let at = offset.checked_add(index as u64).and_then(|at| usize::try_from(at).ok());
            prop_assert_eq!(*byte, at.and_then(|at| block.get(at)).copied().unwrap_or(0));
        }
        guest.device.registers().write(offset, &vec![byte; len]);
    }
}
