//! What each vhost-user message does. The crate `vhost` parses and answers them; the rings are the crate
//! `vhost-user-backend`'s. Its ready-made daemon is not used: it takes connections by path only (not by an inherited
//! descriptor), gives up its queue thread on the first error, and shows neither ring starts nor the messages it got.

use std::fs::File;
use std::io;
use std::sync::Arc;

use log_limit::{LINES, LogLimit, limited};
use pci_layout::ids::{QUEUE_CONTROL, QUEUE_COUNT};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost::{VhostUserMemoryRegionBase, vhost_user};
use vhost_user_backend::VringT;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::front::{QUEUE_SIZE_MAX, Ring, VmFront};
use crate::memory::REGIONS_MAX;

/// Guests and local processes choose how often these lines are due.
static RESETS: LogLimit = LogLimit::new(LINES);

/// The virtio features offered.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Longest config space that is served, in bytes: QEMU's own limit.
const CONFIG_BYTES_MAX: u32 = 256;

/// The vhost-user protocol features offered.
pub fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
}

/// The handler of one connection's messages.
pub struct Messages {
    front: Arc<VmFront>,
    acked_features: u64,
    /// What the control ring stood at when it was last stopped. A ring that starts elsewhere is another boot's.
    control_stopped_at: Option<u16>,
}

impl Messages {
    /// Messages for this front.
    pub fn new(front: Arc<VmFront>) -> Self {
        Self { front, acked_features: 0, control_stopped_at: None }
    }

    fn ring(&self, index: u32) -> Result<(usize, &Ring)> {
        let index = index as usize;
        self.front.ring(index).map(|ring| (index, ring)).ok_or(Error::InvalidParam)
    }

    fn set_ready(&self, index: u32, ready: bool) -> Result<()> {
        let (at, ring) = self.ring(index)?;
        ring.set_queue_ready(ready);
        self.front.follow(at).map_err(Error::ReqHandlerError)
    }

    fn stop_all(&self) -> Result<()> {
        for index in 0..QUEUE_COUNT {
            self.set_ready(index, false)?;
        }
        Ok(())
    }
}

fn unsupported(what: &'static str) -> Error {
    Error::InvalidOperation(what)
}

impl VhostUserBackendReqHandlerMut for Messages {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all()
    }

    fn reset_device(&mut self) -> Result<()> {
        if self.front.device().sessions_open() > 0 {
            limited!(RESETS, info, "the VM has reset the device: its sessions end");
        }
        for index in 0..QUEUE_COUNT {
            let (at, ring) = self.ring(index)?;
            ring.set_enabled(false);
            self.front.follow(at).map_err(Error::ReqHandlerError)?;
        }
        self.acked_features = 0;
        self.control_stopped_at = None;
        self.front.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            log::error!("QEMU sets features that were not offered: {:#x}", features & !FEATURES);
            return Err(Error::InvalidParam);
        }
        log::debug!("features {features:#x}");
        self.acked_features = features;
        let event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let enable_all = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        for index in 0..QUEUE_COUNT {
            let (at, ring) = self.ring(index)?;
            ring.set_queue_event_idx(event_idx);
            if enable_all {
                ring.set_enabled(true);
                self.front.follow(at).map_err(Error::ReqHandlerError)?;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.front
            .memory()
            .replace(table.iter().copied().zip(files))
            .map_err(Error::ReqHandlerError)
            .map(|()| None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let (_, ring) = self.ring(index)?;
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        log::debug!("ring {index}: {num} descriptors");
        ring.get_mut().get_queue_mut().try_set_size(size).map_err(|error| {
            log::error!(
                "ring {index}: size {num} refused ({error}); at most {QUEUE_SIZE_MAX}, a power of two"
            );
            Error::InvalidParam
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let (_, ring) = self.ring(index)?;
        let memory = self.front.memory();
        let gpa = |user_addr| memory.gpa_of_user_addr(user_addr);
        let (Some(descriptors), Some(available), Some(used)) = (gpa(descriptor), gpa(available), gpa(used))
        else {
            log::error!("ring {index} does not lie in shared guest memory; {SHARE_HINT}");
            return Err(Error::InvalidParam);
        };
        log::debug!("ring {index}: descriptors {descriptors:#x}, available {available:#x}, used {used:#x}");
        ring.set_queue_info(descriptors, available, used).map_err(|_| Error::InvalidParam)?;
        // The message for the ring's base carries the available index only; the used index is where the ring has it.
        let used_index = ring.queue_used_idx().map_err(|_| Error::InvalidParam)?;
        ring.set_queue_next_used(used_index);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        log::debug!("ring {index} starts at {base}");
        if index == QUEUE_CONTROL
            && let Some(stopped_at) = self.control_stopped_at.take()
            && stopped_at != base
        {
            log::debug!("the control ring was made anew: the guest has reset the device");
            self.front.reset();
        }
        let (_, ring) = self.ring(index)?;
        ring.set_queue_next_avail(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.set_ready(index, false)?;
        let (at, ring) = self.ring(index)?;
        let base = ring.queue_next_avail();
        ring.set_call(None);
        log::debug!("ring {index} stopped at {base}");
        if index == QUEUE_CONTROL {
            self.control_stopped_at = Some(base);
        }
        self.front.set_kick(at, None).map_err(Error::ReqHandlerError)?;
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let (at, _) = self.ring(index.into())?;
        if file.is_none() {
            log::error!("ring {index}: QEMU wants the ring polled without kicks, which is not supported");
            return Err(Error::InvalidParam);
        }
        self.front.set_kick(at, file).map_err(Error::ReqHandlerError)?;
        self.set_ready(index.into(), true)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let (_, ring) = self.ring(index.into())?;
        ring.set_call(file);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let (_, ring) = self.ring(index.into())?;
        ring.set_err(file);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        log::debug!("protocol features {features:#x}");
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUE_COUNT.into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        log::debug!("ring {index} {}", if enable { "enabled" } else { "disabled" });
        let (at, ring) = self.ring(index)?;
        ring.set_enabled(enable);
        self.front.follow(at).map_err(Error::ReqHandlerError)
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        if size > CONFIG_BYTES_MAX {
            return Err(Error::InvalidParam);
        }
        let mut bytes = vec![0; size as usize];
        self.front.device().registers().read(offset.into(), &mut bytes);
        Ok(bytes)
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.front.device().registers().write(offset.into(), bytes);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.front.memory().add(region, file).map_err(Error::ReqHandlerError).map(|()| None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.front.memory().remove(region).map_err(Error::ReqHandlerError)
    }

    fn set_gpu_socket(&mut self, _socket: GpuBackend) -> Result<()> {
        Err(unsupported("a display socket: this is no display"))
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(unsupported("shared objects"))
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(unsupported("requests in flight across connections"))
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(unsupported("requests in flight across connections"))
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(unsupported("migration"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(unsupported("migration"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(unsupported("shared memory regions"))
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> vhost_user::Result<()> {
        Err(unsupported("dirty page logging: migration"))
    }
}

/// What to say where guest memory is not shared with us.
pub const SHARE_HINT: &str = "the VM's memory must be shared with the back end: start QEMU with \
    -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem";

/// Whether an error leaves the connection usable: the message was read whole, and nobody waits for an answer that
/// will not come.
pub fn is_survivable(error: &Error, awaits_answer: bool) -> bool {
    let message_was_read = matches!(
        error,
        Error::InvalidParam
            | Error::InvalidOperation(_)
            | Error::InactiveFeature(_)
            | Error::InactiveOperation(_)
            | Error::ReqHandlerError(_)
    );
    message_was_read && !awaits_answer
}

/// An I/O error from one of vhost-user's.
pub fn io_error(error: Error) -> io::Error {
    match error {
        Error::SocketBroken(error) | Error::SocketError(error) | Error::ReqHandlerError(error) => error,
        other => io::Error::other(other),
    }
}
