//! Child processes that cannot outlive this one.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, not the process. A test runs on a thread of its own and may
//! hand its guest on, so every such child is forked by one thread that lives as long as the process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

type Order = (Command, Sender<io::Result<Child>>);

fn forker() -> &'static Mutex<Sender<Order>> {
    static FORKER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    FORKER.get_or_init(|| {
        let (orders, incoming) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in incoming {
                // Nobody listens any more when the asking thread panicked; then the child is killed as well.
                if let Err(unheard) = reply.send(command.spawn())
                    && let Ok(mut child) = unheard.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        Mutex::new(orders)
    })
}

/// Starts `command` so that the kernel kills it when this process ends, in whatever way.
///
/// # Errors
/// What `Command::spawn` says.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called; both are async-signal-safe and allocate nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before the line above took effect.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let (reply, answer) = channel();
    let gone = |_| io::Error::other("the forking thread has ended");
    let orders = forker().lock().map_err(|_| io::Error::other("the forking thread panicked"))?.clone();
    orders.send((command, reply)).map_err(|_| io::Error::other("the forking thread has ended"))?;
    answer.recv().map_err(gone)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_outlives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(|| {
            let mut sleep = Command::new("sleep");
            sleep.arg("30");
            spawn(sleep).unwrap()
        })
        .join()
        .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "killed together with the thread");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
