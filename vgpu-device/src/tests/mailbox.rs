//! The mailbox of the literal PCI function.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pci_layout::function::{
    IRQ_RESPONSE, MAILBOX_BAR_BYTES, MAILBOX_BYTES, OFF_MAILBOX_KICK, OFF_MAILBOX_REQUEST,
    OFF_MAILBOX_RESPONSE,
};
use pci_layout::{ABI_VERSION, control, regs};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::fake::{Answer, Asked, Guest, message, open_body, parse};
use crate::mailbox::{Mailbox, Written};
use crate::{Front, SessionId, Wake};

struct Function {
    guest: Guest,
    mailbox: Arc<Mailbox>,
    interrupts: Arc<AtomicU32>,
}

impl Function {
    fn on(guest: Guest) -> Self {
        let interrupts = Arc::new(AtomicU32::new(0));
        let count = interrupts.clone();
        let interrupt = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mailbox = Mailbox::new(guest.device.clone(), interrupt);
        Self { guest, mailbox, interrupts }
    }

    fn new() -> Self {
        Self::on(Guest::new(Front::Queues))
    }

    fn get(&self, register: u32) -> u32 {
        let mut bytes = [0; 4];
        self.mailbox.read(register.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set(&self, register: u32, value: u32) -> Written {
        self.mailbox.write(register.into(), &value.to_le_bytes())
    }

    /// Puts a message in and rings.
    fn ring(&self, message: &[u8]) -> Written {
        self.mailbox.write(OFF_MAILBOX_REQUEST.into(), message);
        self.set(regs::REQUEST_LEN, message.len() as u32);
        self.set(regs::DOORBELL, 1)
    }

    fn ask(&self, kind: u32, session: u32, body: &[u8]) -> Answer {
        assert!(self.ring(&message(kind, 0x77, session, body)).submitted);
        assert_eq!(self.get(regs::STATUS), regs::STATUS_BUSY);
        self.mailbox.carry_out(&self.guest.memory);
        self.answer()
    }

    fn answer(&self) -> Answer {
        let mut bytes = vec![0; self.get(regs::RESPONSE_LEN) as usize];
        self.mailbox.read(OFF_MAILBOX_RESPONSE.into(), &mut bytes);
        let answer = parse(&bytes);
        assert_eq!(
            (answer.error, answer.request_id),
            (self.get(regs::ERROR_CODE), self.get(regs::REQUEST_ID))
        );
        let status = if answer.error == regs::ERROR_NONE { regs::STATUS_DONE } else { regs::STATUS_ERROR };
        assert_eq!(self.get(regs::STATUS), status);
        answer
    }
}

#[test]
fn a_request_is_answered_in_its_place() {
    let function = Function::new();
    assert_eq!(function.get(regs::STATUS), regs::STATUS_IDLE);
    assert_eq!(function.get(regs::PROTOCOL_VER), ABI_VERSION);
    assert_eq!(function.get(regs::VM_ID), 7);
    let answer = function.ask(control::READ_REGS, 0, &[]);
    assert_eq!((answer.error, answer.request_id), (regs::ERROR_NONE, 0x77));
    assert_eq!(answer.body, function.guest.device.registers().block());
    let time =
        u64::from(function.get(regs::TIMESTAMP_HI)) << 32 | u64::from(function.get(regs::TIMESTAMP_LO));
    assert_ne!(time, 0);
    assert_eq!(function.guest.device.registers().block()[regs::STATUS as usize], 0, "the queue's registers");
}

#[test]
fn lengths_and_types_are_checked() {
    let function = Function::new();
    function.set(regs::REQUEST_LEN, MAILBOX_BYTES + 1);
    assert_eq!(function.set(regs::DOORBELL, 0), Written::default());
    assert_eq!(function.get(regs::ERROR_CODE), regs::ERROR_TOO_LARGE);
    assert_eq!((function.get(regs::STATUS), function.get(regs::RESPONSE_LEN)), (regs::STATUS_ERROR, 0));
    function.ring(&[1, 0, 0, 0]);
    function.mailbox.carry_out(&function.guest.memory);
    assert_eq!(function.answer().error, regs::ERROR_INVALID_LENGTH);
    assert_eq!(function.ask(0xffff, 0, &[]).error, regs::ERROR_INVALID_REQUEST);
    let info = control::ReadInfo { offset: 0, len: 4096 };
    assert_eq!(function.ask(control::READ_INFO, 0, info.as_bytes()).body, super::fake::INFO);
}

#[test]
fn a_doorbell_while_busy_changes_nothing() {
    let function = Function::new();
    let first = message(control::READ_REGS, 1, 0, &[]);
    assert!(function.ring(&first).submitted);
    assert_eq!(function.ring(&message(0xffff, 2, 0, &[])), Written::default());
    function.mailbox.carry_out(&function.guest.memory);
    assert_eq!(function.answer().request_id, 1, "the request as it was when the doorbell was rung");
    function.mailbox.carry_out(&function.guest.memory);
    assert_eq!(function.get(regs::REQUEST_ID), 1, "carried out once");
}

#[test]
fn sessions_are_the_mailboxs_until_a_driver_comes() {
    let function = Function::new();
    assert_eq!(function.ask(control::OPEN_SESSION, 3, &open_body(b"A=1\0")).error, regs::ERROR_NONE);
    let open = Asked::Open { session: 3, page: 0x5000, env: b"A=1\0".to_vec(), wake: Wake::Futex };
    assert_eq!(function.guest.fake.take(), [open]);
    let written = function.set(OFF_MAILBOX_KICK, 3);
    assert_eq!(written.kicked, SessionId::new(3));
    assert_eq!(function.set(OFF_MAILBOX_KICK, 9999).kicked, None);
    function.guest.device.kick_session(SessionId::new(3).unwrap());
    function.guest.device.kick_session(SessionId::new(4).unwrap());
    assert_eq!(function.guest.fake.take(), [Asked::Kick(3)]);

    let hello = control::Hello { abi_version: ABI_VERSION, reserved: 0, boot_nonce: 1, pending_gpa: 0x3000 };
    assert_eq!(function.ask(control::HELLO, 0, hello.as_bytes()).error, regs::ERROR_UNSUPPORTED);
    assert_eq!(function.guest.hello(1).error, regs::ERROR_NONE);
    assert_eq!(function.guest.fake.take(), [Asked::Reset]);
    assert_eq!(function.ask(control::OPEN_SESSION, 3, &open_body(b"")).error, regs::ERROR_UNSUPPORTED);
    assert_eq!(function.ask(control::READ_REGS, 0, &[]).error, regs::ERROR_NONE);
}

#[test]
fn interrupts_come_if_wanted() {
    let function = Function::new();
    function.ask(control::READ_REGS, 0, &[]);
    assert_eq!(
        (function.interrupts.load(Ordering::Relaxed), function.get(regs::IRQ_STATUS)),
        (0, IRQ_RESPONSE)
    );
    function.set(regs::IRQ_STATUS, IRQ_RESPONSE);
    assert_eq!(function.get(regs::IRQ_STATUS), 0);
    function.set(regs::IRQ_CTRL, u32::MAX);
    assert_eq!(function.get(regs::IRQ_CTRL), IRQ_RESPONSE);
    function.ask(control::READ_REGS, 0, &[]);
    assert_eq!(function.interrupts.load(Ordering::Relaxed), 1);
}

#[test]
fn a_reset_forgets_everything() {
    let function = Function::new();
    *function.guest.fake.hold.lock().unwrap() = true;
    function.set(regs::SCRATCH, 7);
    function.ring(&message(control::OPEN_SESSION, 5, 0, &open_body(b"")));
    function.mailbox.carry_out(&function.guest.memory);
    function.mailbox.reset();
    function.guest.fake.release()(Ok(()));
    assert_eq!(function.get(regs::STATUS), regs::STATUS_IDLE);
    assert_eq!((function.get(regs::SCRATCH), function.get(regs::RESPONSE_LEN)), (0, 0));
}

proptest! {
    /// What a guest can see is what it may write: its request, its length, SCRATCH, and bit 0 of IRQ_CTRL.
    #[test]
    fn any_access_is_bounded(
        offset in prop_oneof![0u64..u64::from(MAILBOX_BAR_BYTES) + 16, any::<u64>()],
        len in 0usize..80,
        byte: u8,
    ) {
        let function = Function::new();
        let all = || {
            let mut all = vec![0; MAILBOX_BAR_BYTES as usize];
            function.mailbox.read(0, &mut all);
            all
        };
        let before = all();
        let mut part = vec![0xaa; len];
        function.mailbox.read(offset, &mut part);
        for (index, byte) in part.iter().enumerate() {
            let at = offset.checked_add(index as u64).and_then(|at| usize::try_from(at).ok());
            prop_assert_eq!(*byte, at.and_then(|at| before.get(at)).copied().unwrap_or(0));
        }
        let written = function.mailbox.write(offset, &vec![byte; len]);
        prop_assume!(!written.submitted);
        let writable = |at: u32| {
            [(OFF_MAILBOX_REQUEST, MAILBOX_BYTES), (regs::REQUEST_LEN, 4), (regs::SCRATCH, 4), (regs::IRQ_CTRL, 4)]
                .iter()
                .any(|(from, len)| (*from..from + len).contains(&at))
        };
        let by_doorbell = |at: u32| {
            [regs::STATUS, regs::ERROR_CODE, regs::REQUEST_ID, regs::IRQ_STATUS, regs::TIMESTAMP_LO, regs::TIMESTAMP_HI]
                .iter()
                .any(|from| (*from..from + 4).contains(&at))
        };
        for (at, (was, is)) in (0u32..).zip(before.iter().zip(all())) {
            if *was != is {
                prop_assert!(writable(at) || (offset < 4 && by_doorbell(at)), "{at:#x}");
            }
        }
    }
}
