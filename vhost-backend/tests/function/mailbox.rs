//! The mailbox and the data window.

use std::os::unix::fs::FileExt;

use pci_layout::control;
use pci_layout::function::{BAR_DATA, BAR_MAILBOX, DATA_BAR_BYTES_MIN, IRQ_RESPONSE};
use pci_layout::ids::{PCI_SUBSYSTEM_DEVICE, PCI_SUBSYSTEM_VENDOR};
use pci_layout::regs;
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;

use super::fake::Asked;
use super::machine::{Bench, message, open_body};

#[test]
fn the_function_is_what_it_says() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    assert_eq!(machine.get(VFIO_PCI_CONFIG_REGION_INDEX, 0), 0x2331_10de);
    assert_eq!(machine.get(VFIO_PCI_CONFIG_REGION_INDEX, 8) >> 8, 0x03_0200);
    let subsystem = machine.get(VFIO_PCI_CONFIG_REGION_INDEX, 0x2c);
    assert_eq!(subsystem, PCI_SUBSYSTEM_DEVICE << 16 | PCI_SUBSYSTEM_VENDOR);
    assert_eq!(machine.client.get_irq_info(1).unwrap().count, 1);
    assert_eq!(machine.client.get_irq_info(0).unwrap().count, 0);
    machine.works();
}

#[test]
fn the_window_is_one_memory_for_both_sides() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    let region = machine.client.region(BAR_DATA).unwrap();
    assert_eq!((region.size, region.sparse_areas.len()), (DATA_BAR_BYTES_MIN, 1));
    assert_eq!((region.sparse_areas[0].offset, region.sparse_areas[0].size), (0, DATA_BAR_BYTES_MIN));
    let window = region.file_offset.as_ref().unwrap();
    assert_eq!(window.start(), 0);
    window.file().write_all_at(b"by mapping", 0x1234).unwrap();
    let mut read = [0; 10];
    machine.client.region_read(BAR_DATA, 0x1234, &mut read).unwrap();
    assert_eq!(&read, b"by mapping");

    // A session of the mailbox's names it.
    machine.ring(&message(control::OPEN_SESSION, 1, 2, &open_body(0x1000)));
    assert_eq!(machine.response().error, regs::ERROR_NONE);
    let page = bench.fake.expect("a session", |asked| match asked {
        Asked::Open { session: 2, page } => Some(page.clone()),
        _ => None,
    });
    assert_eq!((page.offset, page.len), (0x1000, 4096));
    std::fs::File::from(page.file.try_clone().unwrap()).read_exact_at(&mut read, 0x1234).unwrap();
    assert_eq!(&read, b"by mapping");
    machine.ring(&message(control::OPEN_SESSION, 1, 3, &open_body(DATA_BAR_BYTES_MIN)));
    assert_eq!(machine.response().error, regs::ERROR_INVALID_REQUEST, "a page outside of the window");
}

#[test]
fn nobody_waits_for_a_request() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    bench.fake.hold();
    machine.set(BAR_MAILBOX, regs::IRQ_CTRL, IRQ_RESPONSE);
    machine.ring(&message(control::OPEN_SESSION, 9, 2, &open_body(0)));
    bench.fake.expect("a session", |asked| matches!(asked, Asked::Open { .. }).then_some(()));
    for _ in 0..100 {
        assert_eq!(machine.get(BAR_MAILBOX, regs::STATUS), regs::STATUS_BUSY);
    }
    machine.set(BAR_MAILBOX, regs::DOORBELL, 1);
    assert!(machine.interrupt.read().is_err());
    bench.fake.release();
    assert_eq!(machine.response().request_id, 9);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while machine.interrupt.read().is_err() {
        assert!(std::time::Instant::now() < deadline, "no interrupt came");
        std::thread::yield_now();
    }
    assert_eq!(machine.get(BAR_MAILBOX, regs::IRQ_STATUS), IRQ_RESPONSE);
}
