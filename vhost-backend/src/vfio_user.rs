//! The vfio-user front: the device as a plain PCI function ([`pci_layout::function`]) in stock QEMU's `vfio-user-pci`.
//!
//! | BAR | what | who |
//! |---|---|---|
//! | 0 | the mailbox: registers, one request, one response | programs that map it, tools |
//! | 1 | the data window: memory of the daemon's, mapped by QEMU into the guest as it is | programs that map it |
//! | 3 | the queue registers | the guest's kernel driver |
//!
//! Behind the queue registers are the same rings, control messages and events as behind vhost-user, on the same [`VmFront`]; guest
//! memory comes by DMA_MAP. One thread per connection (`vfio-user`) answers QEMU's messages, which vCPUs wait for: it never waits for the
//! device, which the function's own thread (`function`) does. Only DEVICE_RESET, which QEMU sends when no vCPU runs, waits until all of
//! the VM's workers are reaped.
//!
//! The crate `vfio_user` is the server. It takes the connection itself and does not show it: a daemon that is asked to end looks for it
//! among its descriptors ([`end_connection`]). It panics at messages that make no sense, which is caught: that connection ends.

mod backend;
mod config_space;
mod data;
mod function;
mod queues;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, SocketAddrUnix, getpeername, getsockname, shutdown};
use vfio_user::Server;
use vgpu_device::Device;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::args::FunctionConfig;
use crate::daemon::{Ended, Stop, TURN, borrow};
use crate::front::VmFront;
use crate::socket::Listener;
use backend::Backend;
use config_space::ConfigSpace;
use data::DataWindow;
use function::Function;

/// How often it is looked whether a connection was taken.
const LOOK: Duration = Duration::from_millis(20);

/// Serves the connections that come to `listener`, one at a time, until [`Stop`] is asked.
///
/// # Errors
/// The listener fails.
pub fn serve(
    listener: &Listener,
    device: &Arc<Device>,
    stop: &Stop,
    config: &FunctionConfig,
) -> io::Result<()> {
    let ended = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
    let mut active: Option<(JoinHandle<()>, Arc<AtomicBool>)> = None;
    let mut waits: Option<Instant> = None;
    loop {
        if stop.is_asked() {
            if let Some((thread, _)) = active {
                end_connection(listener);
                join(thread);
            }
            return Ok(());
        }
        // Told by the thread itself, as the last thing it does: the end of a thread wakes nobody.
        if ended.read().is_ok()
            && let Some((finished, _)) = active.take()
        {
            join(finished);
        }
        if active.is_none() && waits.take().is_some() {
            match start(listener, device, config, &ended) {
                Ok(started) => active = Some(started),
                Err(error) => {
                    log::error!("cannot serve the connection: {error}");
                    // Out of descriptors, most likely: not to be retried in a busy loop.
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
        if waits.take_if(|since| since.elapsed() >= TURN).is_some() && listener.accept()?.is_some() {
            log::warn!("a second VM has tried to connect: refused, this daemon serves one");
        }
        let taken = active.as_ref().is_none_or(|(_, begun)| begun.load(Ordering::Acquire));
        let wait = match (taken, waits) {
            // The next one cannot be told from this one before it was taken.
            (false, _) => Some(LOOK),
            (true, Some(since)) => Some(TURN.saturating_sub(since.elapsed())),
            (true, None) => None,
        };
        let wait = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut ready = vec![
            PollFd::from_borrowed_fd(borrow(stop.wake()), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(&ended), PollFlags::IN),
        ];
        if taken && waits.is_none() {
            ready.push(PollFd::new(listener, PollFlags::IN));
        }
        match poll(&mut ready, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if ready.get(2).is_some_and(|listener| !listener.revents().is_empty()) {
            waits = Some(Instant::now());
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!("the connection's thread panicked");
    }
}

/// Lets the connection that came to `listener` come to its end: what QEMU has sent is answered, and it can send no more. A QEMU that
/// waits for an answer when its connection is closed may abort.
fn end_connection(listener: &Listener) {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = descriptors.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number >= 0) {
        // SAFETY: only asked for a duplicate. If another thread closes it meanwhile, that fails, or is of something else, which the
        // questions below tell apart.
        let Ok(fd) = (unsafe { BorrowedFd::borrow_raw(number) }).try_clone_to_owned() else { continue };
        let came_here = getsockname(&fd)
            .ok()
            .and_then(|name| SocketAddrUnix::try_from(name).ok())
            .is_some_and(|name| name.path_bytes() == Some(listener.path().as_os_str().as_bytes()));
        if came_here && getpeername(&fd).is_ok_and(|peer| peer.is_some()) {
            // An error means that it has ended already.
            let _ = shutdown(&fd, Shutdown::Read);
        }
    }
}

/// Starts the thread that takes the next connection and serves it; the flag says that it has taken one.
fn start(
    listener: &Listener,
    device: &Arc<Device>,
    config: &FunctionConfig,
    ended: &Arc<EventFd>,
) -> io::Result<(JoinHandle<()>, Arc<AtomicBool>)> {
    let data = DataWindow::new(config.data_bytes)?;
    let regions = backend::regions(&data);
    let server =
        Server::from_owned_fd(listener.as_fd().try_clone_to_owned()?, true, backend::interrupts(), regions);
    let function = Function::new(VmFront::new(device.clone())?, data)?;
    let begun = Arc::new(AtomicBool::new(false));
    let space = ConfigSpace::new(config.vendor, config.device);
    let mut backend = Backend::new(function.clone(), space, begun.clone());
    let (device, ended) = (device.clone(), Ended(ended.clone()));
    let thread = thread::Builder::new().name("vfio-user".into()).spawn(move || {
        let _ended = ended;
        if let Err(error) = connection(&server, &mut backend, &function, &device) {
            log::error!("the connection to the VM has ended: {error}");
        } else {
            log::info!("the VM has disconnected");
        }
    })?;
    Ok((thread, begun))
}

/// QEMU has ended with something unread or unsent, by a signal for example.
fn is_gone(error: &vfio_user::Error) -> bool {
    let errno = match error {
        vfio_user::Error::StreamRead(error) | vfio_user::Error::StreamWrite(error) => error.raw_os_error(),
        vfio_user::Error::SendWithFd(error) | vfio_user::Error::ReceiveWithFd(error) => Some(error.errno()),
        _ => None,
    };
    let gone = [rustix::io::Errno::CONNRESET, rustix::io::Errno::PIPE].map(rustix::io::Errno::raw_os_error);
    errno.is_some_and(|errno| gone.contains(&errno))
}

/// Serves one connection; returns when it has ended and every worker of the VM was reaped.
fn connection(
    server: &Server,
    backend: &mut Backend,
    function: &Arc<Function>,
    device: &Arc<Device>,
) -> io::Result<()> {
    let front = function.shared_front();
    let queues = {
        let front = front.clone();
        thread::Builder::new().name("queues".into()).spawn(move || front.run())?
    };
    let own = {
        let function = function.clone();
        thread::Builder::new().name("function".into()).spawn(move || function.run())?
    };
    device.events().set_sink(Some(front.clone()));
    log::info!("a VM has connected");
    let served = catch_unwind(AssertUnwindSafe(|| server.run(backend)));
    device.events().set_sink(None);
    function.end();
    front.end();
    for thread in [queues, own] {
        if thread.join().is_err() {
            log::error!("a thread of the connection panicked");
        }
    }
    function.reset();
    match served {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if is_gone(&error) => Ok(()),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::Error::other("a message made no sense")),
    }
}
