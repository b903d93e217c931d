//! The system calls themselves.

use anyhow::{Context, Result, ensure};

use super::device::{Device, IOCTLS, anonymous, iowr, unmap};
use crate::local::Until;
use crate::{Random, Tally};

/// Addresses that are no memory of ours: the kernel's, nobody's, the end of a page of ours before a hole.
fn bad_address(random: &mut Random, edge: u64) -> u64 {
    match random.below(7) {
        0 => 0,
        1 => 0xffff_8880_0000_0000 | random.word() & 0xfff_ffff,
        2 => 0xffff_ffff_8100_0000 | random.word() & 0xff_ffff,
        3 => u64::MAX - random.below(64),
        4 => 0x7fff_ffff_f000 - random.below(16),
        // Half in memory, half in a hole.
        5 => edge - random.below(48),
        _ => random.nasty(),
    }
}

fn note(tally: &mut Tally, result: std::io::Result<()>) {
    tally.count(match result.map_err(|e| e.raw_os_error()) {
        Ok(()) => "carried out",
        Err(Some(libc::EFAULT)) => "EFAULT",
        Err(Some(libc::ENOTTY)) => "ENOTTY",
        Err(Some(libc::EINVAL)) => "EINVAL",
        Err(_) => "refused otherwise",
    });
}

/// Numbers near and far from ours, without and with a session, on pointers good and bad.
pub fn numbers(random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let page = anonymous(8192, libc::PROT_READ | libc::PROT_WRITE)?;
    unmap(page + 4096, 4096);
    let mut device = Device::open()?;
    while !until.is_over() || tally.cases < 500 {
        let number = match random.below(4) {
            0 => random.word() & 0xffff_ffff,
            1 => iowr(random.below(40) as u32, random.below(1 << 14) as usize),
            // Ours, with another direction.
            2 => random.pick(&IOCTLS).0 & 0x3fff_ffff | random.below(4) << 30,
            _ => random.pick(&IOCTLS).0,
        };
        if number == IOCTLS[9].0 {
            // On a page of zeros it is a proper wait without an end.
            continue;
        }
        let argument = if random.once_in(3) { page } else { bad_address(random, page + 4096) };
        note(&mut tally, device.raw(number, argument));
        if random.once_in(20) {
            device = Device::open()?;
            if random.once_in(2) {
                // EBUSY where the last one has not ended yet.
                let _ = device.open_session();
            }
        }
    }
    ensure!(tally.of("ENOTTY") > 0 && tally.of("EFAULT") > 0, "one-sided: {tally}");
    Ok(tally)
}

/// Our ioctls with arguments of the right size and any content.
pub fn arguments(random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let area = anonymous(1 << 20, libc::PROT_READ | libc::PROT_WRITE)?;
    let edge = anonymous(8192, libc::PROT_READ | libc::PROT_WRITE)? + 4096;
    unmap(edge, 4096);
    let mut device = Device::with_session()?;
    while !until.is_over() || tally.cases < 500 {
        let (number, size) = random.pick(&IOCTLS);
        let mut words = [0u64; 40];
        for word in words.iter_mut().take(size.div_ceil(8)) {
            *word = match random.below(6) {
                0 => bad_address(random, edge),
                1 => area + 4096 * random.below(256),
                2 => random.below(300),
                3 => 4096 * random.below(300),
                4 => random.nasty() << 32 | random.below(300),
                _ => random.nasty(),
            };
        }
        // A wait without an end would be one.
        let is_wait = number == IOCTLS[9].0;
        if is_wait {
            words[0] = words[0] & 0xffff_ffff | (1 + random.below(3)) << 32;
        }
        let before = words;
        note(&mut tally, device.call(number, &mut words));
        let used = size.div_ceil(8);
        ensure!(words[used..] == before[used..], "ioctl {number:#x} wrote past its argument");
        if random.once_in(60) {
            drop(device);
            device = Device::with_session()?;
        }
    }
    Ok(tally)
}

/// Children that use the parent's file, threads that use one file at once, processes that are killed in the middle.
pub fn processes(random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    while !until.is_over() || tally.cases < 5 {
        let device = Device::with_session()?;
        device.create_ring().context("CREATE_RING")?;
        // SAFETY: the child makes system calls only, and ends by _exit or a signal.
        let child = unsafe { libc::fork() };
        ensure!(child >= 0, "fork");
        if child == 0 {
            let mut refused = true;
            let mut words = [0u64; 40];
            for (number, _) in &IOCTLS[3..] {
                let result = device.call(*number, &mut words);
                refused &= result.is_err_and(|e| e.raw_os_error() == Some(libc::ECHILD));
            }
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        ensure!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            "a child used its parent's session"
        );
        tally.count("child refused");
        // Several threads, one file: rings come and go under one another, and the session ends in the middle of it.
        let seeds: Vec<u64> = (0..4).map(|_| random.word()).collect();
        std::thread::scope(|scope| {
            for seed in seeds {
                let device = &device;
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    for _ in 0..30 {
                        let mut words = [0u64; 40];
                        words[0] = random.below(6);
                        words[1] = 4096 << random.below(8);
                        let (number, _) = IOCTLS[3 + random.below(6) as usize];
                        // Any outcome will do.
                        let _ = device.call(number, &mut words);
                    }
                    if random.once_in(3) {
                        let _ = device.close_session();
                    }
                });
            }
        });
        tally.count("threads on one file");
        drop(device);
        // Killed at any moment of a session's life.
        // SAFETY: as above; the child is killed.
        let child = unsafe { libc::fork() };
        ensure!(child >= 0, "fork");
        if child == 0 {
            if let Ok(device) = Device::with_session() {
                let area = anonymous(1 << 20, libc::PROT_READ | libc::PROT_WRITE).unwrap_or(0);
                loop {
                    let mut words = [area, 1 << 20, 0, 0, 0];
                    let _ = device.call(IOCTLS[6].0, &mut words);
                    let _ = device.create_ring();
                }
            }
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        std::thread::sleep(std::time::Duration::from_millis(random.below(60)));
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: as above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        tally.count("killed");
    }
    Ok(tally)
}
