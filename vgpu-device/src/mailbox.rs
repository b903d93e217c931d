//! The mailbox: BAR0 of the literal PCI function ([`pci_layout::function`]). The registers, one request, one response.
//!
//! An access never waits: a DOORBELL copies the request and says so to the front ([`Written::submitted`]), which has another thread carry
//! it out ([`Mailbox::carry_out`]). Accesses may have any width and any offset; bytes that are no register read as 0 and ignore what is
//! written. STATUS, ERROR_CODE, REQUEST_ID and TIMESTAMP are those of the mailbox's own requests, not of the control queue's.

use std::sync::{Arc, Mutex, MutexGuard};

use pci_layout::control::ReplyHeader;
use pci_layout::function::{
    IRQ_RESPONSE, MAILBOX_BYTES, MAILBOX_HEAD_BYTES, OFF_MAILBOX_KICK, OFF_MAILBOX_REQUEST,
    OFF_MAILBOX_RESPONSE,
};
use pci_layout::regs;
use zerocopy::FromBytes;

use crate::device::Device;
use crate::ids::SessionId;
use crate::memory::GuestMemory;
use crate::regs::monotonic_ns;

const BYTES: usize = MAILBOX_BYTES as usize;
const HEAD: usize = MAILBOX_HEAD_BYTES as usize;

/// What a write asks of the front.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// A request waits for [`Mailbox::carry_out`], in another thread.
    pub submitted: bool,
    /// A parked worker is to look at its rings: [`Device::kick_session`], in another thread.
    pub kicked: Option<SessionId>,
}

/// The mailbox of one function.
pub struct Mailbox {
    device: Arc<Device>,
    /// Raises the function's interrupt.
    interrupt: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    request: [u8; BYTES],
    response: [u8; BYTES],
    request_len: [u8; 4],
    response_len: u32,
    status: u32,
    error: u32,
    request_id: u32,
    time_ns: u64,
    irq_ctrl: u32,
    irq_status: u32,
    scratch: [u8; 4],
    /// The request as it was when the doorbell was rung.
    submitted: Option<Vec<u8>>,
    /// Grows at each reset: responses of an earlier life are dropped.
    life: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            request: [0; BYTES],
            response: [0; BYTES],
            request_len: [0; 4],
            response_len: 0,
            status: regs::STATUS_IDLE,
            error: regs::ERROR_NONE,
            request_id: 0,
            time_ns: 0,
            irq_ctrl: 0,
            irq_status: 0,
            scratch: [0; 4],
            submitted: None,
            life: 0,
        }
    }
}

impl Mailbox {
    /// A mailbox that nothing was put into yet. `interrupt` is called for a response, if the guest wants that, from any thread.
    pub fn new(device: Arc<Device>, interrupt: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { device, interrupt, state: Mutex::default() })
    }

    /// Reads `buf.len()` bytes from `offset` on.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        let state = self.lock();
        copy_out(buf, offset, 0, &self.head(&state));
        copy_out(buf, offset, OFF_MAILBOX_REQUEST, &state.request);
        copy_out(buf, offset, OFF_MAILBOX_RESPONSE, &state.response);
    }

    /// Writes `data` from `offset` on. Where one write reaches several registers, the doorbell rings last.
    pub fn write(&self, offset: u64, data: &[u8]) -> Written {
        let mut state = self.lock();
        copy_in(&mut state.request, OFF_MAILBOX_REQUEST, offset, data);
        copy_in(&mut state.request_len, regs::REQUEST_LEN, offset, data);
        copy_in(&mut state.scratch, regs::SCRATCH, offset, data);
        let mut ctrl = state.irq_ctrl.to_le_bytes();
        copy_in(&mut ctrl, regs::IRQ_CTRL, offset, data);
        state.irq_ctrl = u32::from_le_bytes(ctrl) & IRQ_RESPONSE;
        let mut clear = [0; 4];
        copy_in(&mut clear, regs::IRQ_STATUS, offset, data);
        state.irq_status &= !u32::from_le_bytes(clear);
        let mut written = Written::default();
        let mut slot = [0; 4];
        if copy_in(&mut slot, OFF_MAILBOX_KICK, offset, data) {
            written.kicked = SessionId::new(u32::from_le_bytes(slot));
        }
        if copy_in(&mut [0; 4], regs::DOORBELL, offset, data) {
            written.submitted = self.ring(state);
        }
        written
    }

    /// Carries out what was submitted, if anything was; the response comes now or later, from any thread. `memory` is what addresses in
    /// the message name.
    pub fn carry_out(self: &Arc<Self>, memory: &dyn GuestMemory) {
        let (message, life) = {
            let mut state = self.lock();
            let Some(message) = state.submitted.take() else { return };
            (message, state.life)
        };
        let mailbox = self.clone();
        let reply = Box::new(move |answer: &[u8]| mailbox.respond(life, answer));
        self.device.mailbox_control(&message, memory, BYTES, reply);
    }

    /// Everything as it was at the start; a request that is under way has no response any more.
    pub fn reset(&self) {
        let mut state = self.lock();
        let life = state.life.wrapping_add(1);
        *state = State { life, ..State::default() };
    }

    /// The doorbell: true if there is something to carry out now.
    fn ring(&self, mut state: MutexGuard<'_, State>) -> bool {
        if state.status == regs::STATUS_BUSY {
            return false;
        }
        state.response_len = 0;
        let len = usize::try_from(u32::from_le_bytes(state.request_len)).ok();
        let Some(message) = len.and_then(|len| state.request.get(..len)).map(<[u8]>::to_vec) else {
            let id = crate::request::request_id(&state.request).unwrap_or(0);
            self.settle(state, id, regs::ERROR_TOO_LARGE);
            return false;
        };
        state.status = regs::STATUS_BUSY;
        state.error = regs::ERROR_NONE;
        state.submitted = Some(message);
        true
    }

    fn respond(&self, life: u64, answer: &[u8]) {
        let mut state = self.lock();
        if state.life != life {
            log::debug!("response of an earlier life dropped");
            return;
        }
        state.response.fill(0);
        for (to, from) in state.response.iter_mut().zip(answer) {
            *to = *from;
        }
        state.response_len = u32::try_from(answer.len().min(BYTES)).unwrap_or(0);
        let (error, id) = ReplyHeader::read_from_prefix(answer)
            .map_or((regs::ERROR_INVALID_REQUEST, 0), |(header, _)| (header.error, header.request_id));
        self.settle(state, id, error);
    }

    fn settle(&self, mut state: MutexGuard<'_, State>, request_id: u32, error: u32) {
        state.status = if error == regs::ERROR_NONE { regs::STATUS_DONE } else { regs::STATUS_ERROR };
        state.error = error;
        state.request_id = request_id;
        state.time_ns = monotonic_ns();
        state.irq_status |= IRQ_RESPONSE;
        let wanted = state.irq_ctrl & IRQ_RESPONSE != 0;
        drop(state);
        if wanted {
            (self.interrupt)();
        }
    }

    /// The registers as they are read now: the device's, with the mailbox's own in their places.
    fn head(&self, state: &State) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        for (to, from) in head.iter_mut().zip(self.device.registers().block()) {
            *to = from;
        }
        let own = [
            (regs::DOORBELL, 0u32.to_le_bytes()),
            (regs::STATUS, state.status.to_le_bytes()),
            (regs::ERROR_CODE, state.error.to_le_bytes()),
            (regs::REQUEST_LEN, state.request_len),
            (regs::RESPONSE_LEN, state.response_len.to_le_bytes()),
            (regs::IRQ_CTRL, state.irq_ctrl.to_le_bytes()),
            (regs::IRQ_STATUS, state.irq_status.to_le_bytes()),
            (regs::REQUEST_ID, state.request_id.to_le_bytes()),
            (regs::SCRATCH, state.scratch),
        ];
        for (register, bytes) in own {
            copy_in(&mut head, 0, register.into(), &bytes);
        }
        // Low half, then high half: the two registers lie side by side.
        copy_in(&mut head, 0, regs::TIMESTAMP_LO.into(), &state.time_ns.to_le_bytes());
        head
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain stores only: nothing is left half done by a holder that panicked.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Copies into `buf`, which is read from `offset` on, what `bytes` at `at` has of it.
pub fn copy_out(buf: &mut [u8], offset: u64, at: u32, bytes: &[u8]) {
    for (index, to) in (0u64..).zip(buf) {
        if let Some(from) = place(offset, index, at).and_then(|place| bytes.get(place)) {
            *to = *from;
        }
    }
}

/// Copies into `bytes` at `at` what `data`, written from `offset` on, has for it; whether that was anything.
pub fn copy_in(bytes: &mut [u8], at: u32, offset: u64, data: &[u8]) -> bool {
    let mut any = false;
    for (index, from) in (0u64..).zip(data) {
        if let Some(to) = place(offset, index, at).and_then(|place| bytes.get_mut(place)) {
            *to = *from;
            any = true;
        }
    }
    any
}

/// Where byte `index` of an access at `offset` lies in what begins at `at`.
fn place(offset: u64, index: u64, at: u32) -> Option<usize> {
    let inside = offset.checked_add(index)?.checked_sub(u64::from(at))?;
    usize::try_from(inside).ok()
}
