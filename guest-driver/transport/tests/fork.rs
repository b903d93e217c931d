//! A forked child has no session, and touching one does it no harm. Alone in its binary: the child of a process with
//! other test threads might inherit their locks.

mod daemon;

use std::thread;
use std::time::Duration;

use daemon::*;
use transport::{AreaError, CallError, ControlError, Device, OpenError, OpenParams, SessionState};

const PARAMS: OpenParams<'_> = OpenParams { fingerprint: [7; 16], env: b"" };
const VA: usize = 0x2a_6000_0000;

/// What a child finds wrong, as its exit status; 0 if nothing is.
fn child(checks: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child does little (no lock of another thread's is taken by what it calls) and leaves by _exit.
    match unsafe { libc::fork() } {
        0 => {
            let status = checks();
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for that child.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
            libc::WEXITSTATUS(status)
        }
    }
}

#[test]
fn a_forked_child_is_told_so_and_the_parent_goes_on() {
    let daemon = Daemon::start(Config::default());
    let session = Device::open_local(daemon.path()).unwrap().open_session(&PARAMS).unwrap();
    let mut ring = session.create_ring().unwrap();
    ring.staging().unwrap();
    let shared = session.alloc_shared(VA, 4096).unwrap();
    assert!(!transport::is_forked_child());
    let path = daemon.path().to_owned();

    let mut for_child = (Some(ring), Some(session));
    let status = child(|| {
        let (Some(ring), Some(session)) = (&mut for_child.0, &for_child.1) else { return 1 };
        let forked = CallError::ForkedChild;
        let checks = [
            transport::is_forked_child(),
            session.state() == SessionState::Dead(0),
            ring.post(ADD, 0, 0, session.next_ticket(), |frame| frame.put_u64(1)) == Err(forked),
            ring.call(ECHO, 0, 0, session.next_ticket(), |_| {}, |_, _| ()) == Err(forked),
            ring.wait_bulk(0) == Err(forked),
            ring.take_async_error().is_none(),
            ring.staging() == Err(ControlError::ForkedChild),
            matches!(session.create_ring(), Err(ControlError::ForkedChild)),
            session.device_info() == Err(ControlError::ForkedChild),
            session.map_region(VA, 4096, 0) == Err(ControlError::ForkedChild),
            session.close() == Err(ControlError::ForkedChild),
            session.alloc_shared(VA, 4096) == Err(AreaError::ForkedChild),
            session.free_shared(VA) == Err(AreaError::ForkedChild),
            matches!(Device::open_local(&path), Err(OpenError::ForkedChild)),
        ];
        // The addresses are the child's to use: giving the session up must not unmap what it put there.
        let own = {
            // SAFETY: a new mapping where the parent's area was not inherited.
            unsafe {
                libc::mmap(
                    shared.cast(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                    -1,
                    0,
                )
            }
        };
        if own != shared.cast() {
            return 2;
        }
        for_child = (None, None);
        // SAFETY: mapped by the child just now.
        unsafe { shared.write_volatile(1) };
        checks.iter().position(|held| !held).map_or(0, |index| 10 + i32::try_from(index).unwrap_or(99))
    });
    assert_eq!(status, 0, "from 10 on: the index of the check that failed");

    thread::sleep(Duration::from_millis(5));
    let (Some(mut ring), Some(session)) = for_child else { panic!("the parent's are its own") };
    let answer = ring.call(
        ECHO,
        0,
        0,
        session.next_ticket(),
        |frame| frame.put_u64(5),
        |result, reply| (result, reply.bytes().to_vec()),
    );
    assert_eq!(answer, Ok((0, 5u64.to_le_bytes().to_vec())));
    drop(ring);
    assert_eq!(daemon.shared.rings_open.load(std::sync::atomic::Ordering::Relaxed), 0);
}
