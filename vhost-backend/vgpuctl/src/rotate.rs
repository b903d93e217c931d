//! More device memory than there is: VMs that take turns with all of it.
//!
//! One VM is on the GPU, the others are suspended, each for as long as this program holds the connection to its daemon: whatever happens to
//! it, they come back by themselves.

use std::path::Path;
use std::time::{Duration, Instant};

use vgpu_control::{Answer, AskError, Found, Request, VmReport};

use crate::Failure;
use crate::arguments::Rotate;

/// How often it is looked whether a VM does something, and tried again whether there is room for one.
const LOOK: Duration = Duration::from_millis(500);

/// A VM that takes turns.
struct Member {
    found: Found,
    /// How long its last suspend took, and its last resume.
    off: Duration,
    back: Duration,
    /// It did something in its last turn.
    works: bool,
}

impl Member {
    fn name(&self) -> String {
        let name = self.found.report.name.as_ref().map(|name| format!(" ({name})"));
        format!("VM {}{}", self.found.place.vm, name.unwrap_or_default())
    }

    /// What it says of it; the daemon's refusal, with `Err` within.
    fn tell(&mut self, request: &Request) -> Result<Result<String, String>, AskError> {
        Ok(match self.found.connection.ask(request)? {
            Answer::Refused { reason } => Err(reason),
            Answer::Done { lines } => Ok(lines.join("; ")),
            Answer::Vm(_) => Ok(String::new()),
        })
    }

    fn suspend(&mut self) -> Result<Result<String, String>, AskError> {
        let begin = Instant::now();
        let said = self.tell(&Request::Suspend { while_connected: true })?;
        if said.is_ok() {
            self.off = begin.elapsed();
        }
        Ok(said)
    }

    /// Waits until there is room for it.
    fn resume(&mut self) -> Result<(), AskError> {
        let mut told = false;
        loop {
            let begin = Instant::now();
            match self.tell(&Request::Resume)? {
                Ok(_) => {
                    self.back = begin.elapsed();
                    return Ok(());
                }
                Err(reason) if !told => {
                    eprintln!("vgpuctl: {}: {reason}; it is tried again", self.name());
                    told = true;
                }
                Err(_) => {}
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What it has done so far; the longer it has worked, the more.
    fn done(&mut self) -> Result<(u64, u64), AskError> {
        let of = |report: &VmReport| (report.work.all_calls(), report.work.gpu_us);
        if let Answer::Vm(report) = self.found.connection.ask(&Request::Show)? {
            self.found.report = *report;
        }
        Ok(of(&self.found.report))
    }

    /// Its turn, of this length. It ends before if the VM does nothing for so long.
    fn turn(&mut self, length: Duration, idle: Option<Duration>) -> Result<(), AskError> {
        let begin = Instant::now();
        let first = self.done()?;
        let (mut done, mut at_work) = (first, begin);
        while begin.elapsed() < length {
            std::thread::sleep(LOOK.min(length));
            let now = self.done()?;
            if now != done {
                (done, at_work) = (now, Instant::now());
            } else if idle.is_some_and(|idle| at_work.elapsed() >= idle) {
                break;
            }
        }
        self.works = done != first;
        Ok(())
    }
}

/// A turn, for programs.
#[derive(serde::Serialize)]
struct Turn<'a> {
    vm: u32,
    turn_s: f64,
    works: bool,
    /// What the daemon says of its suspend.
    suspended: &'a str,
    suspend_s: f64,
    next_vm: u32,
    resume_s: f64,
}

/// Has the VMs take turns until there are fewer than two of them, or there were enough turns.
pub(crate) fn run(dir: &Path, json: bool, options: &Rotate) -> Result<(), Failure> {
    let mut members: Vec<Member> = Vec::new();
    for vm in &options.vms {
        let found = vgpu_control::find(dir, vm)?;
        if members.iter().any(|member| member.found.place == found.place) {
            return Err(Failure::Refused(format!("VM {vm} is named twice")));
        }
        members.push(Member { found, off: Duration::ZERO, back: Duration::ZERO, works: true });
    }
    // Those that are suspended already come back when this ends, as all do.
    for member in &mut members {
        if member.found.report.suspended.is_some() {
            member.resume()?;
        }
    }
    for member in members.iter_mut().skip(1) {
        if let Err(reason) = member.suspend()? {
            return Err(Failure::Refused(format!("{}: {reason}; no VM takes turns", member.name())));
        }
    }
    let (mut at, mut count) = (0usize, 0u64);
    while members.len() > 1 && options.count.is_none_or(|most| count < most) {
        let next = at.saturating_add(1).checked_rem(members.len()).unwrap_or(0);
        let others_work = members.iter().enumerate().any(|(i, member)| i != at && member.works);
        match one_turn(&mut members, at, next, json, options, others_work) {
            Ok(ended) => at = if ended { next } else { at },
            Err((gone, error)) => {
                eprintln!("vgpuctl: {error}; the others go on");
                members.remove(gone);
                at = at.min(members.len().saturating_sub(1));
                // It may be suspended, if the one that is gone was on the GPU.
                if let Some(member) = members.get_mut(at)
                    && (gone == at || gone == next)
                    && member.done().is_ok()
                    && member.found.report.suspended.is_some()
                {
                    member.resume()?;
                }
            }
        }
        count = count.saturating_add(1);
    }
    Ok(())
}

/// A turn, and the change to the next VM. True: there was one. Where a daemon does not answer, which of the VMs that is.
fn one_turn(
    members: &mut [Member],
    at: usize,
    next: usize,
    json: bool,
    options: &Rotate,
    others_work: bool,
) -> Result<bool, (usize, AskError)> {
    let begin = Instant::now();
    let back = members.get(next).map_or(Duration::ZERO, |member| member.back);
    let Some(member) = members.get_mut(at) else { return Ok(true) };
    let length = options.turn.max(member.off.saturating_add(back).saturating_mul(options.times));
    let idle = others_work.then_some(options.idle);
    member.turn(length, idle).map_err(|error| (at, error))?;
    let turn = begin.elapsed();
    let said = member.suspend().map_err(|error| (at, error))?;
    let (name, vm, works, off) = (member.name(), member.found.place.vm, member.works, member.off);
    let said = match said {
        Ok(said) => said,
        Err(reason) => {
            eprintln!("vgpuctl: {name}: {reason}; it has another turn");
            return Ok(false);
        }
    };
    let Some(follower) = members.get_mut(next) else { return Ok(true) };
    follower.resume().map_err(|error| (next, error))?;
    let line = if json {
        let turn = Turn {
            vm,
            turn_s: turn.as_secs_f64(),
            works,
            suspended: &said,
            suspend_s: off.as_secs_f64(),
            next_vm: follower.found.place.vm,
            resume_s: follower.back.as_secs_f64(),
        };
        serde_json::to_string(&turn).unwrap_or_default()
    } else {
        let (turn, back) = (turn.as_secs_f64(), follower.back.as_secs_f64());
        let what = if works { "" } else { ", with nothing to do" };
        format!("{name}: {turn:.1} s on the GPU{what}; {said}; {} is back in {back:.1} s", follower.name())
    };
    // Nobody reads it: it goes on all the same.
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), format!("{line}\n").as_bytes());
    Ok(true)
}
