//! The checks. Each runs on this host and in VMs, with other checks before and after it on the same daemon.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use whole_stack::place::{Place, Started, kill_here, wait_gone};

/// A process's worker and its memory are gone so soon after the process.
const GONE_LIMIT: Duration = Duration::from_secs(1);
/// A process that has ended is out of the daemon's books so soon: the guest's kernel tells the daemon when it closes its files.
const CLOSED_LIMIT: Duration = Duration::from_secs(20);
/// Within this time there is a moment in which completion words come before a thread stops looking for them.
const WORDS_LIMIT: Duration = Duration::from_secs(60);
/// Where the software executor's device memory begins.
const DEVICE_MEMORY: &str = "2a0000000000";
/// A driver's answer to a call of a process without a worker.
const UNKNOWN: &str = "answered 999";

/// A check by its name.
pub type Check = (&'static str, fn(&Place) -> Result<()>);

macro_rules! checks {
    ($($name:ident)+) => {
        /// All checks that make sense in both places.
        pub const CHECKS: &[Check] = &[$((stringify!($name), $name)),+];
        /// One test for each check, on this host, with a daemon of its own.
        mod local {
            $(#[test]
            fn $name() {
                crate::on_this_host(super::$name);
            })+
        }
    };
}

checks! {
    demonstration
    strict
    api
    nvml
    two_processes
    threads_hand_work_on
    full_launch_queue
    waits
    long_copies
    killed_process
    forks
    foreign_addresses
    killed_worker
    faulty_kernel
    pinned_memory
}

/// A process that computes meanwhile, and whose results are right at the end.
fn bystander(place: &Place, seed: u32) -> Result<Started<'_>> {
    place.start(&format!("compute until {seed}"))
}

fn dismiss(bystander: Started<'_>) -> Result<()> {
    bystander.tell("")?;
    bystander.check().context("the process beside it").map(drop)
}

fn total(place: &Place, name: &str) -> Result<u64> {
    place.daemon().totals()?.get(name).with_context(|| format!("no total {name}"))
}

/// The demonstration's programs; and no call that was sent without waiting for it failed.
fn demonstration(place: &Place) -> Result<()> {
    let before = (total(place, "calls")?, total(place, "posted_errors")?);
    place.check("driver_api")?;
    place.check("runtime_api")?;
    ensure!(total(place, "calls")? > before.0 + 40, "hardly any call has reached the worker");
    ensure!(total(place, "posted_errors")? == before.1, "posted calls failed");
    place.wait_for_total("sessions_open", 0, CLOSED_LIMIT)
}

/// Every call waits: the same results.
fn strict(place: &Place) -> Result<()> {
    for line in ["driver_api", "runtime_api", "api", "threads events", "threads stream", "threads write"] {
        place.job(line).env("VGPU_STRICT", "1").check()?;
    }
    Ok(())
}

fn api(place: &Place) -> Result<()> {
    place.check("api").map(drop)
}

/// NVML says of the devices what CUDA says of them.
fn nvml(place: &Place) -> Result<()> {
    place.check("nvml").map(drop)
}

/// Two processes at once on data that differ, each with its own session, at the same addresses.
fn two_processes(place: &Place) -> Result<()> {
    // Sessions of processes that have just ended may still be there.
    place.wait_for_total("sessions_open", 0, CLOSED_LIMIT)?;
    let first = bystander(place, 1)?;
    let second = bystander(place, 100)?;
    ensure!(total(place, "sessions_open")? == 2, "two processes are not two sessions");
    place.check("compute rounds 1000 40")?;
    dismiss(first)?;
    dismiss(second)
}

fn threads_hand_work_on(place: &Place) -> Result<()> {
    place.check("threads events")?;
    place.check("threads stream").map(drop)
}

fn full_launch_queue(place: &Place) -> Result<()> {
    place.check("threads write")?;
    place.check("threads host").map(drop)
}

/// What is known without asking the worker is right, and is not asked.
fn waits(place: &Place) -> Result<()> {
    for line in ["waiting results", "waiting busy", "waiting freed exactly"] {
        place.check(line)?;
        place.job(line).env("VGPU_STRICT", "1").check()?;
    }
    let replies = |line: &str| -> Result<u64> {
        place.wait_for_total("sessions_open", 0, CLOSED_LIMIT)?;
        let before = total(place, "replies")?;
        place.check(line)?;
        place.wait_for_total("sessions_open", 0, CLOSED_LIMIT)?;
        Ok(total(place, "replies")? - before)
    };
    let asked = replies("waiting idle")?;
    ensure!(asked < 100, "10,000 questions about what is over were asked {asked} times");
    let asked = replies("waiting freed exactly")?;
    ensure!(asked < 1000, "2,500 allocations of the same size took {asked} questions");
    // How many words come soon enough depends on what else the machine does; without them it would be one question each, always.
    let start = Instant::now();
    loop {
        let asked = replies("waiting rounds")?;
        if asked < 2000 {
            return Ok(());
        }
        ensure!(
            start.elapsed() < WORDS_LIMIT,
            "no completion word has come in time: {asked} questions in 2,000 rounds"
        );
    }
}

/// Copies that several threads of the library take part in, of several threads of the program, with forks and captures meanwhile.
fn long_copies(place: &Place) -> Result<()> {
    for line in ["copies threads", "copies fork", "copies capture", "copies one"] {
        place.check(line)?;
    }
    place.job("copies threads").env("VGPU_STRICT", "1").check().map(drop)
}

/// SIGKILL in the midst of a copy and of a kernel, also while a forked child lives on: the worker is gone at once.
fn killed_process(place: &Place) -> Result<()> {
    let beside = bystander(place, 7)?;
    for line in ["copies", "spin", "sleeper copies", "sleeper spin"] {
        let mut victim = place.start(&format!("processes {line}"))?;
        let (process, child) = victim.ready()?;
        let worker = place.worker_of(process)?;
        place.kill(process)?;
        wait_gone(worker, GONE_LIMIT).with_context(|| format!("the worker of a killed process ({line})"))?;
        place.wait_for_total("sessions_open", 1, CLOSED_LIMIT).with_context(|| line.to_owned())?;
        if child != 0 {
            place.kill(child)?;
        }
        let ended = victim.finish()?;
        ensure!(ended.signal == Some(libc::SIGKILL), "{line}: {ended:?}");
        place.check("compute rounds 3 2").with_context(|| format!("after a kill ({line})"))?;
    }
    dismiss(beside)
}

fn forks(place: &Place) -> Result<()> {
    place.check("processes fork-before")?;
    place.check("processes fork-after").map(drop)
}

/// Every call that takes a device address, with addresses that are not the process's: the shim refuses each. The addresses
/// of the worker's own memory are among them, as the host's kernel lists them.
fn foreign_addresses(place: &Place) -> Result<()> {
    let mut program = place.start("addresses")?;
    let (process, _) = program.ready()?;
    let maps = format!("/proc/{}/maps", place.worker_of(process)?);
    let text = std::fs::read_to_string(&maps).with_context(|| maps.clone())?;
    // What the process owns lies where the worker's device memory begins, at the same address: no foreign one.
    let starts =
        text.lines().filter_map(|line| line.split('-').next()).filter(|start| *start != DEVICE_MEMORY);
    let elsewhere = ["2afffffff000", "7f0000000000", "7ffffffff000", "555555554000"];
    let addresses: Vec<&str> = elsewhere.into_iter().chain(starts).collect();
    ensure!(addresses.len() > 20, "{maps} names few addresses:\n{text}");
    program.tell(&format!("{}\nend\n", addresses.join("\n")))?;
    let said = program.check()?;
    ensure!(said.contains(&format!("{} foreign addresses", addresses.len())), "{said}");
    for row in cuda_api::all_calls() {
        let takes_address = row.shape.contains("devin ") || row.shape.contains("devout ");
        let made = said.lines().any(|line| line.strip_prefix("call ") == Some(row.name));
        ensure!(made || !takes_address, "{} was not called with a foreign address", row.name);
    }
    Ok(())
}

/// The worker is killed: its process hears of it at its next call, or in the call that it waits in; nobody else does.
fn killed_worker(place: &Place) -> Result<()> {
    let beside = bystander(place, 11)?;
    for how in ["copy", "wait"] {
        let died = total(place, "sessions_died")?;
        let mut victim = place.start(&format!("processes until-error {how}"))?;
        let (process, _) = victim.ready()?;
        std::thread::sleep(Duration::from_millis(100));
        kill_here(place.worker_of(process)?)?;
        let said = victim.check()?;
        ensure!(said.contains(UNKNOWN), "{said}");
        place.wait_for_total("sessions_died", died + 1, CLOSED_LIMIT).context("the worker's death")?;
        place.check("compute rounds 5 2")?;
    }
    dismiss(beside)
}

/// A kernel that goes astray: its process hears of it from then on; nobody else does.
fn faulty_kernel(place: &Place) -> Result<()> {
    let beside = bystander(place, 13)?;
    for how in ["unmapped", "misaligned"] {
        place.check(&format!("processes fault {how}"))?;
        place.check("compute rounds 6 2")?;
    }
    dismiss(beside)
}

fn pinned_memory(place: &Place) -> Result<()> {
    let beside = bystander(place, 17)?;
    place.check("pinned alloc")?;
    place.check("pinned large")?;
    if place.vm().is_some() {
        place.check("pinned register")?;
        place.check("pinned unmapped")?;
    } else {
        place.check("pinned unsupported")?;
    }
    dismiss(beside)
}
