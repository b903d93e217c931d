//! Accesses of every width at every offset, of every value that matters: the function works afterwards, and no access waits.

use pci_layout::function::{BAR_DATA, BAR_MAILBOX, BAR_QUEUES, DATA_BAR_BYTES_MIN, MAILBOX_BAR_BYTES};
use pci_layout::regs;
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;

use super::machine::{Bench, Machine};

/// Widths of a CPU's accesses, and some that no CPU has.
const WIDTHS: [usize; 7] = [1, 2, 4, 8, 3, 16, 40];

fn plays(machine: &mut Machine, region: u32, offsets: impl Iterator<Item = u64> + Clone) {
    for pattern in [0x00, 0x01, 0x5a, 0xff] {
        for width in WIDTHS {
            let mut bytes = vec![pattern; width];
            for offset in offsets.clone() {
                machine.client.region_write(region, offset, &bytes).unwrap();
                machine.client.region_read(region, offset, &mut bytes).unwrap();
                bytes.fill(pattern);
            }
        }
    }
}

#[test]
fn the_mailbox_outlives_every_access() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    plays(&mut machine, BAR_MAILBOX, 0..u64::from(MAILBOX_BAR_BYTES) / 4 + 8);
    plays(
        &mut machine,
        BAR_MAILBOX,
        (0x430..0x850).chain(0xff0..0x1010).chain([1 << 32, u64::MAX - 7, u64::MAX]),
    );
    machine.wait_for(BAR_MAILBOX, regs::STATUS, "it comes to rest", |status| status != regs::STATUS_BUSY);
    machine.works();
}

#[test]
fn the_queue_registers_outlive_every_access() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    plays(
        &mut machine,
        BAR_QUEUES,
        (0..0x90).chain(0x3f0..0x510).chain(0xff0..0x1010).chain([1 << 32, u64::MAX - 7, u64::MAX]),
    );
    machine.works();
    machine.start_queues();
    assert_eq!(machine.hello(1).error, regs::ERROR_NONE);
    // With queues that run as well.
    plays(&mut machine, BAR_QUEUES, 0..0x90);
    machine.start_queues();
    assert_eq!(machine.hello(2).error, regs::ERROR_NONE);
}

#[test]
fn the_window_and_the_config_space_outlive_every_access() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    let end = DATA_BAR_BYTES_MIN;
    plays(
        &mut machine,
        BAR_DATA,
        (0..64).chain(4090..4100).chain(end - 48..end + 8).chain([1 << 40, u64::MAX - 7, u64::MAX]),
    );
    plays(&mut machine, VFIO_PCI_CONFIG_REGION_INDEX, (0..264).chain([1 << 40, u64::MAX - 7, u64::MAX]));
    assert_eq!(machine.get(VFIO_PCI_CONFIG_REGION_INDEX, 0), 0x2331_10de);
    machine.works();
}
