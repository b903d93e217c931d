//! Guests that break the rules: each of them is answered or left alone, and the next proper request works.

use pci_layout::{control, regs};
use vm_memory::{Bytes, GuestAddress};

use super::driver::{Descriptor, INDIRECT, NEXT, QUEUE_SIZE, WRITE};
use super::machine::{Bench, HIGH};

const REQUEST: u64 = 0x40_0000;
const ANSWER: u64 = 0x41_0000;

/// What is played, the chain, and what comes of it.
type Case = (&'static str, Vec<Descriptor>, (u32, Option<u32>));

/// Puts a chain at descriptors 200… and waits for it to come back; the bytes written, and the error if it is an answer.
fn play(bench: &mut Bench, chain: &[Descriptor]) -> (u32, Option<u32>) {
    let machine = &mut bench.machine;
    machine.memory.write_obj(u64::MAX, GuestAddress(ANSWER)).unwrap();
    for (index, descriptor) in (200..).zip(chain) {
        machine.control.write_descriptor(index, *descriptor);
    }
    machine.control.post(200);
    machine.control.kick();
    let (head, len) = machine.control.used();
    assert_eq!(head, 200);
    let error = (len >= 16).then(|| machine.memory.read_obj(GuestAddress(ANSWER)).unwrap());
    (len, error)
}

fn still_works(bench: &mut Bench) {
    assert_eq!(bench.machine.ask(control::READ_REGS, 0, &[]).body.len(), 256);
}

fn readable(address: u64, len: u32, next: u16) -> Descriptor {
    Descriptor { address, len, flags: NEXT, next }
}

fn writable(address: u64, len: u32) -> Descriptor {
    Descriptor { address, len, flags: WRITE, next: 0 }
}

#[test]
fn chains_that_make_no_sense_come_back_with_an_error() {
    let mut bench = Bench::booted();
    let request = [control::READ_REGS, 7, 0, 0];
    for (at, word) in (0u64..).step_by(4).zip(request) {
        bench.machine.memory.write_obj(word, GuestAddress(REQUEST + at)).unwrap();
    }
    let answer = writable(ANSWER, 4096);
    let cases: [Case; 11] = [
        ("no room for an answer", vec![readable(REQUEST, 16, 201), writable(ANSWER, 15)], (0, None)),
        ("nothing to write to", vec![Descriptor { flags: 0, ..readable(REQUEST, 16, 0) }], (0, None)),
        (
            "room for the header only",
            vec![readable(REQUEST, 16, 201), writable(ANSWER, 16)],
            (16, Some(regs::ERROR_INVALID_LENGTH)),
        ),
        ("no request", vec![answer], (16, Some(regs::ERROR_INVALID_LENGTH))),
        ("too long", vec![readable(REQUEST, 0x10_0000, 201), answer], (16, Some(regs::ERROR_TOO_LARGE))),
        (
            "longer than memory",
            vec![readable(REQUEST, 0x7fff_ffff, 201), answer],
            (16, Some(regs::ERROR_TOO_LARGE)),
        ),
        (
            "request outside of memory",
            vec![readable(1 << 40, 16, 201), answer],
            (16, Some(regs::ERROR_INVALID_REQUEST)),
        ),
        ("answer outside of memory", vec![readable(REQUEST, 16, 201), writable(1 << 40, 4096)], (0, None)),
        (
            "readable after writable",
            vec![
                readable(REQUEST, 16, 201),
                Descriptor { flags: WRITE | NEXT, next: 202, ..answer },
                readable(REQUEST, 16, 0),
            ],
            (16, Some(regs::ERROR_INVALID_REQUEST)),
        ),
        ("longer than 4 GiB in all", vec![readable(REQUEST, u32::MAX, 201), answer], (0, None)),
        ("chain that bites its tail", vec![readable(REQUEST, 16, 200)], (0, None)),
    ];
    for (what, chain, expected) in cases {
        assert_eq!(play(&mut bench, &chain), expected, "{what}");
        still_works(&mut bench);
    }
    bench.disconnect().unwrap();
}

#[test]
fn answer_may_be_scattered_and_indirect() {
    let mut bench = Bench::booted();
    for (at, word) in (0u64..).step_by(4).zip([control::READ_REGS, 7, 0, 0]) {
        bench.machine.memory.write_obj(word, GuestAddress(REQUEST + at)).unwrap();
    }
    let table = HIGH + 0x50_0000;
    let parts = [(ANSWER, 10), (ANSWER + 10, 6), (ANSWER + 16, 200), (ANSWER + 216, 4000)];
    bench.machine.control.write_descriptor_at(table, readable(REQUEST, 7, 1));
    bench.machine.control.write_descriptor_at(table + 16, readable(REQUEST + 7, 9, 2));
    for (index, (address, len)) in (2u16..).zip(parts) {
        let flags = if index == 5 { WRITE } else { WRITE | NEXT };
        let descriptor = Descriptor { address, len, flags, next: index + 1 };
        bench.machine.control.write_descriptor_at(table + 16 * u64::from(index), descriptor);
    }
    let indirect = Descriptor { address: table, len: 6 * 16, flags: INDIRECT, next: 0 };
    assert_eq!(play(&mut bench, &[indirect]), (16 + 256, Some(regs::ERROR_NONE)));
    bench.disconnect().unwrap();
}

#[test]
fn indirect_table_of_65535_descriptors_is_cut_off() {
    let mut bench = Bench::booted();
    let table = HIGH + 0x50_0000;
    for index in 0..0xffffu32 {
        let descriptor = readable(REQUEST, 1, (index + 1) as u16);
        bench.machine.control.write_descriptor_at(table + 16 * u64::from(index), descriptor);
    }
    let indirect = Descriptor { address: table, len: 0xffff * 16, flags: INDIRECT, next: 0 };
    assert_eq!(play(&mut bench, &[indirect]), (0, None));
    still_works(&mut bench);
    bench.disconnect().unwrap();
}

#[test]
fn available_index_that_jumps_stops_the_queue_and_nothing_else() {
    let mut bench = Bench::booted();
    let true_index = bench.machine.control.avail;
    bench.machine.control.publish(true_index.wrapping_add(QUEUE_SIZE + 1));
    bench.machine.control.kick();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(bench.machine.control.try_used().is_none());
    bench.machine.control.publish(true_index);
    still_works(&mut bench);
    bench.disconnect().unwrap();
}

#[test]
fn head_beyond_the_queue_is_left_alone() {
    let mut bench = Bench::booted();
    bench.machine.control.post(QUEUE_SIZE + 5);
    bench.machine.control.kick();
    std::thread::sleep(std::time::Duration::from_millis(50));
    // What the queue does after that is the guest's own loss; the device and the connection live.
    let read = bench.device.registers().block();
    assert_eq!(read.len(), 256);
    bench.machine.stop_queues();
    bench.disconnect().unwrap();
}

#[test]
fn event_buffers_that_are_no_use_come_back_empty() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    bench.machine.events.write_descriptor(0, writable(0x30_0000, 31));
    bench.machine.events.post(0);
    bench.machine.events.write_descriptor(1, Descriptor { flags: 0, ..writable(0x30_0000, 32) });
    bench.machine.events.post(1);
    bench.machine.post_event_buffer(2);
    bench.device.wake(vgpu_device::SessionId::new(0).unwrap());
    assert_eq!(bench.machine.events.try_used(), Some((0, 0)));
    assert_eq!(bench.machine.events.try_used(), Some((1, 0)));
    assert_eq!(bench.machine.event(), (pci_layout::event::EVENT_WAKE, 0, 0));
    bench.disconnect().unwrap();
}
