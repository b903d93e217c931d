//! Sessions of local processes.

use std::os::fd::AsFd;
use std::process::Command;

use pci_layout::control::{CLOSE_SESSION, HELLO, OPEN_SESSION, READ_INFO, READ_REGS, REMOVE_RING, ReadInfo};
use pci_layout::event::DEATH_WORKER_LOST;
use pci_layout::{ids, regs, ring};
use rustix::fs::SealFlags;
use vgpu_device::SessionId;
use vhost_backend::local::SLOT_UNASSIGNED;
use zerocopy::IntoBytes;

use super::process::{Process, Served, memfd, open_body};

const RING_BYTES: u64 = ring::RING_BYTES as u64;

#[test]
fn whole_life_of_a_session() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    let block = process.ask(READ_REGS, 0, &[], &[]).body;
    assert_eq!(block[regs::MAGIC as usize..][..8], ids::TAG);
    let info = ReadInfo { offset: 4, len: 3 };
    assert_eq!(process.ask(READ_INFO, 0, info.as_bytes(), &[]).body, b"rma");
    let slot = process.open();
    let ring = memfd(RING_BYTES, SealFlags::SHRINK);
    assert_eq!(process.add_ring(slot, Some(&ring)), regs::ERROR_NONE);
    assert_eq!(process.ask(REMOVE_RING, slot, &[0; 8], &[]).error, regs::ERROR_NONE);
    assert_eq!(process.close(slot), regs::ERROR_NONE);
    served.expect(&["open 0", &format!("ring 0.0 of {RING_BYTES}"), "remove 0.0", "close 0"]);
    assert_eq!(process.open(), 0, "the slot is free again");
    served.stop();
}

#[test]
fn end_of_the_connection_closes_the_session() {
    let served = Served::start();
    let first = Process::connect(&served.path);
    let second = Process::connect(&served.path);
    assert_eq!((first.open(), second.open()), (0, 1));
    drop(first);
    served.expect(&["open 0", "open 1", "close 0"]);
    assert_eq!(Process::connect(&served.path).open(), 0);
    served.stop();
}

#[test]
fn end_of_the_process_closes_the_session_though_a_child_holds_the_socket() {
    let served = Served::start();
    // A shell connects through us: it inherits the socket, its pid is ours. So the process is played by python3.
    let script = format!(
        "import socket,os,struct,time\n\
         s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n\
         s.connect({:?})\n\
         m=os.memfd_create('p',os.MFD_ALLOW_SEALING)\n\
         os.ftruncate(m,4096)\n\
         import fcntl\n\
         fcntl.fcntl(m,1033,2)\n\
         socket.send_fds(s,[struct.pack('<IIII',4,9,0xffffffff,0)+struct.pack('<II16sQII',1,1,bytes(16),0,0,0)],[m])\n\
         s.recv(100)\n\
         if os.fork()==0:\n\
        \x20time.sleep(3600)\n\
         else:\n\
        \x20os._exit(0)\n",
        served.path.to_str().unwrap()
    );
    let mut parent =
        Command::new("python3").arg("-c").arg(script).process_group_of_its_own().spawn().unwrap();
    let group = parent.id();
    parent.wait().unwrap();
    served.expect(&["open 0", "close 0"]);
    let group = rustix::process::Pid::from_raw(group as i32).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    served.stop();
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

#[test]
fn death_of_the_session_ends_the_connection() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    let slot = process.open();
    served.device.died(SessionId::new(slot).unwrap(), DEATH_WORKER_LOST);
    assert!(process.receive().is_none());
    served.expect(&["open 0", "close 0"]);
    served.stop();
}

#[test]
fn refused_session_leaves_the_connection_usable() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    *served.fake.refuse_opening.lock().unwrap() = true;
    let answer = process.try_open();
    assert_eq!((answer.error, answer.cuda_result), (regs::ERROR_CUDA, 2));
    assert!(answer.file.is_none());
    *served.fake.refuse_opening.lock().unwrap() = false;
    assert_eq!(process.open(), 0);
    served.stop();
}

#[test]
fn other_peoples_sessions_are_out_of_reach() {
    let served = Served::start();
    let owner = Process::connect(&served.path);
    let slot = owner.open();
    let thief = Process::connect(&served.path);
    let ring = memfd(RING_BYTES, SealFlags::SHRINK);
    assert_eq!(thief.add_ring(slot, Some(&ring)), regs::ERROR_INVALID_REQUEST);
    assert_eq!(thief.close(slot), regs::ERROR_INVALID_REQUEST);
    let own = thief.open();
    assert_ne!(own, slot);
    assert_eq!(thief.add_ring(slot, Some(&ring)), regs::ERROR_INVALID_REQUEST);
    assert_eq!(thief.close(slot), regs::ERROR_INVALID_REQUEST);
    served.expect(&["open 0", "open 1"]);
    served.stop();
}

#[test]
fn slots_are_not_chosen_and_sessions_not_opened_twice() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    let page = memfd(4096, SealFlags::SHRINK);
    let open = |slot| process.ask(OPEN_SESSION, slot, &open_body(), &[page.as_fd()]).error;
    assert_eq!(open(5), regs::ERROR_INVALID_REQUEST);
    assert_eq!(open(SLOT_UNASSIGNED), regs::ERROR_NONE);
    assert_eq!(open(SLOT_UNASSIGNED), regs::ERROR_INVALID_REQUEST);
    served.stop();
}

#[test]
fn files_that_could_fault_are_refused() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    let slot = process.open();
    assert_eq!(process.add_ring(slot, None), regs::ERROR_INVALID_REQUEST, "no file");
    let unsealed = memfd(RING_BYTES, SealFlags::GROW);
    assert_eq!(process.add_ring(slot, Some(&unsealed)), regs::ERROR_INVALID_REQUEST, "it may shrink");
    let short = memfd(RING_BYTES - 4096, SealFlags::SHRINK);
    assert_eq!(process.add_ring(slot, Some(&short)), regs::ERROR_INVALID_REQUEST, "too short");
    let regular = tempfile::tempfile().unwrap().into();
    assert_eq!(process.add_ring(slot, Some(&regular)), regs::ERROR_INVALID_REQUEST, "a file of a disk");
    served.expect(&["open 0"]);
    served.stop();
}

#[test]
fn nonsense_is_answered() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    let page = memfd(4096, SealFlags::SHRINK);
    let two = [page.as_fd(), page.as_fd()];
    assert_eq!(process.ask(READ_REGS, 0, &[], &two).error, regs::ERROR_INVALID_REQUEST);
    assert_eq!(process.ask(99, 0, &[], &[]).error, regs::ERROR_INVALID_REQUEST);
    assert_eq!(process.ask(CLOSE_SESSION, 0, &[0; 8], &[]).error, regs::ERROR_INVALID_REQUEST);
    assert_eq!(process.ask(HELLO, 0, &[0; 4], &[]).error, regs::ERROR_INVALID_LENGTH);
    assert_eq!(process.open(), 0);
    served.stop();
}

#[test]
fn daemon_ends_with_processes_connected() {
    let served = Served::start();
    let process = Process::connect(&served.path);
    process.open();
    let fake = served.fake.clone();
    served.stop();
    assert!(process.receive().is_none());
    assert_eq!(*fake.asked.lock().unwrap(), ["open 0", "close 0"]);
}
