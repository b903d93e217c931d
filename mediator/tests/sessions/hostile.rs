//! Guests that break the rules: each ends its own session and nothing else.

use std::sync::atomic::Ordering;

use mediator::WakeKind;
use pci_layout::event::{DEATH_EXECUTOR, DEATH_MALFORMED, DEATH_WORKER_LOST};
use pci_layout::ring::{FRAME_AREA_BYTES, HEADER_BYTES, OFF_HEAD, OFF_TAIL};
use vgpu_ring::SessionState;

use crate::echo::call;
use crate::guest::{Dead, Guest, GuestRing, Memory, start_vm};

pub const TESTS: &[(&str, fn())] = &[
    ("malformed_rings_end_their_session", malformed_rings_end_their_session),
    ("malformed_calls_and_broken_handlers_end_their_session", malformed_calls_and_broken_handlers),
    ("a_forged_tail_changes_nothing", a_forged_tail_changes_nothing),
    ("a_page_that_shrinks_harms_its_session_only", a_page_that_shrinks),
];

/// Does `harm` to a session's ring and expects its death, while another session goes on.
fn dies_of(reason: u32, name: &str, harm: impl FnOnce(&mut GuestRing<'_>)) {
    let (vm, kernel) = start_vm(|_| ());
    let (victim, other) =
        (Guest::open(&vm, &kernel, 1, WakeKind::Event), Guest::open(&vm, &kernel, 2, WakeKind::Event));
    let (mut ring, mut ring_of_other) = (victim.ring(0), other.ring(0));
    ring.call(call::ECHO, &[1; 8]);
    harm(&mut ring);
    vm.kick(1);
    assert_eq!(kernel.wait_for_death(1), Some(reason), "{name}");
    assert_eq!(victim.state(), SessionState::Dead(reason), "{name}");
    assert_eq!(ring.try_call(call::ECHO, &[]), Err(Dead(reason)), "{name}");
    assert_eq!(ring_of_other.call(call::ECHO, &[9; 8]), [9; 8], "{name}");
    assert_eq!(victim.close(), Ok(()), "{name}");
    assert_eq!(kernel.deaths(), 1, "{name}");
}

/// Publishes a frame header at the ring's head, and moves the head by `published`.
fn forge(ring: &GuestRing<'_>, len: u32, flags: u32, ticket: u64, published: u64) {
    let head = ring.memory.word(OFF_HEAD as usize).load(Ordering::SeqCst);
    let at = HEADER_BYTES as usize + (head % u64::from(FRAME_AREA_BYTES)) as usize;
    ring.memory.word(at).store(u64::from(len) | u64::from(call::ECHO) << 32, Ordering::SeqCst);
    ring.memory.word(at + 8).store(u64::from(flags), Ordering::SeqCst);
    ring.memory.word(at + 16).store(ticket, Ordering::SeqCst);
    ring.memory.word(OFF_HEAD as usize).store(head.wrapping_add(published), Ordering::SeqCst);
}

fn malformed_rings_end_their_session() {
    let malformed = |name, harm: &dyn Fn(&mut GuestRing<'_>)| dies_of(DEATH_MALFORMED, name, harm);
    malformed("length 0", &|ring| forge(ring, 0, 0, 100, 32));
    malformed("longer than published", &|ring| forge(ring, 64, 0, 100, 32));
    malformed("longer than a frame", &|ring| forge(ring, 128 * 1024, 0, 100, 128 * 1024));
    malformed("unaligned", &|ring| forge(ring, 25, 0, 100, 32));
    malformed("unknown flags", &|ring| forge(ring, 32, 0x80, 100, 32));
    malformed("ticket 0", &|ring| forge(ring, 32, 0, 0, 32));
    malformed("head runs away", &|ring| forge(ring, 32, 0, 100, u64::from(FRAME_AREA_BYTES) + 8));
    malformed("head runs far away", &|ring| forge(ring, 32, 0, 100, u64::MAX / 2));
    malformed("head goes back", &|ring| forge(ring, 32, 0, 100, 8u64.wrapping_neg()));
    malformed("head is unaligned", &|ring| forge(ring, 32, 0, 100, 31));
}

fn malformed_calls_and_broken_handlers() {
    let posted = |number| move |ring: &mut GuestRing<'_>| assert!(ring.post(number, &[]) > 1);
    let waited = |number| move |ring: &mut GuestRing<'_>| assert!(ring.try_call(number, &[]).is_err());
    dies_of(DEATH_MALFORMED, "malformed, posted", posted(call::MALFORMED));
    dies_of(DEATH_MALFORMED, "malformed, waited for", waited(call::MALFORMED));
    dies_of(DEATH_MALFORMED, "unknown call", waited(12345));
    dies_of(DEATH_MALFORMED, "no staging", waited(call::STAGING));
    dies_of(DEATH_WORKER_LOST, "panic", waited(call::PANIC));
    dies_of(DEATH_EXECUTOR, "long reply", waited(call::LONG_REPLY));
}

fn a_forged_tail_changes_nothing() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    for round in 0..2000u64 {
        assert_eq!(ring.call(call::ECHO, &round.to_le_bytes()), round.to_le_bytes());
        if round % 100 == 0 {
            let tail = ring.memory.word(OFF_TAIL as usize);
            let before = tail.swap(round.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::SeqCst);
            assert!(before > 0);
            // The guest's own end believes it, so it is put back; the host never reads it.
            tail.store(before, Ordering::SeqCst);
        }
    }
    assert_eq!(kernel.deaths(), 0);
}

fn a_page_that_shrinks() {
    let (vm, kernel) = start_vm(|_| ());
    let (victim, other) =
        (Guest::open(&vm, &kernel, 1, WakeKind::Futex), Guest::open(&vm, &kernel, 2, WakeKind::Futex));
    let mut ring_of_other = other.ring(0);
    let memory = Memory::new(u64::from(pci_layout::ring::RING_BYTES));
    victim.add_part(0, 0, &memory).expect("added");
    rustix::fs::ftruncate(&*memory.pieces[0].file, 0).expect("shrunk");
    rustix::fs::ftruncate(&*victim.page.pieces[0].file, 0).expect("shrunk");
    if let Some(kick) = vm.kick_fd(1) {
        rustix::io::write(&kick, &1u64.to_ne_bytes()).expect("kick");
    }
    assert_eq!(kernel.wait_for_death(1), Some(DEATH_WORKER_LOST));
    assert_eq!(victim.close(), Ok(()));
    assert_eq!(ring_of_other.call(call::ECHO, &[9; 8]), [9; 8]);
}
