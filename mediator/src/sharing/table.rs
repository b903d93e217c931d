//! The supervisor's table of what a VM's sessions share.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cuda_api::CUresult;
use cuda_api::sharing::{TOKEN_BYTES, Token, What};
use zerocopy::FromZeros;

use super::{Message, kind, receive, send, what_of};

/// What a session may share at once, and how much of it by descriptor: NCCL exports several hundred allocations a process.
const PER_SESSION_MAX: usize = 1 << 16;
const FILES_PER_SESSION_MAX: usize = 4096;
/// Descriptors in the table. They are the daemon's own, which raises its limit for them as far as it may.
const FILES_MAX: usize = 16384;

/// The same in this process: never more than half of what it may open, whatever guests share.
fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(FILES_MAX, |limit| usize::try_from(limit / 2).unwrap_or(FILES_MAX).min(FILES_MAX))
}
/// Requests of a session in a [`WINDOW`]; a worker in its right mind leaves more time between them.
const REQUESTS_MAX: u32 = 8192;
const WINDOW: Duration = Duration::from_secs(1);

/// A session, as the one that shares.
pub(crate) struct Owner {
    serial: u64,
    session: u32,
    /// Since when requests are counted, and how many there were.
    window: Mutex<(Instant, u32)>,
}

struct Entry {
    owner: u64,
    what: What,
    len: u64,
    handle: [u8; TOKEN_BYTES],
    file: Option<OwnedFd>,
}

#[derive(Default)]
struct Entries {
    by_token: HashMap<Token, Entry>,
    /// Sessions that may share, by serial: how many tokens each has, and how many of them with a descriptor.
    owners: HashMap<u64, (usize, usize)>,
    files: usize,
}

/// What a VM's sessions share. Its lock is taken for a look at the table and never while anything is waited for.
#[derive(Default)]
pub(crate) struct Tokens {
    entries: Mutex<Entries>,
    next: AtomicU64,
}

impl Entries {
    fn remove(&mut self, token: &Token) {
        let Some(entry) = self.by_token.remove(token) else { return };
        let file = usize::from(entry.file.is_some());
        self.files = self.files.saturating_sub(file);
        if let Some((tokens, files)) = self.owners.get_mut(&entry.owner) {
            *tokens = tokens.saturating_sub(1);
            *files = files.saturating_sub(file);
        }
    }
}

impl Tokens {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that may share and open from now on.
    pub(crate) fn owner(&self, session: u32) -> Owner {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        self.entries().owners.insert(serial, (0, 0));
        Owner { serial, session, window: Mutex::new((Instant::now(), 0)) }
    }

    /// The session has ended, and what it shared with it.
    pub(crate) fn forget(&self, owner: &Owner) {
        let mut entries = self.entries();
        entries.owners.remove(&owner.serial);
        let mut files = 0usize;
        let gone: Vec<Entry> = entries
            .by_token
            .extract_if(|_, entry| entry.owner == owner.serial)
            .map(|(_, entry)| entry)
            .inspect(|entry| files = files.saturating_add(usize::from(entry.file.is_some())))
            .collect();
        entries.files = entries.files.saturating_sub(files);
        drop(entries);
        // Descriptors are closed without the lock.
        drop(gone);
    }

    /// Answers what has come from a session's worker. False: nothing that comes from it is looked at any more.
    pub(crate) fn serve(&self, owner: &Owner, socket: BorrowedFd<'_>) -> bool {
        let request = match receive(socket) {
            Ok(Some(request)) => request,
            Ok(None) => return false,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(error) => {
                log::error!("session {}: a request that is none: {error}", owner.session);
                return false;
            }
        };
        if !owner.may_ask() {
            log::error!("session {}: too many requests, no more of them are answered", owner.session);
            return false;
        }
        let (answer, file) = self.carry_out(owner, request).unwrap_or_else(|error| {
            let CUresult(kind) = error;
            (Message { kind, ..Message::new_zeroed() }, None)
        });
        match send(socket, &answer, file.as_ref()) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("session {}: a request's answer: {error}", owner.session);
                false
            }
        }
    }

    fn carry_out(
        &self,
        owner: &Owner,
        (request, file): (Message, Option<OwnedFd>),
    ) -> cuda_api::CuResult<(Message, Option<OwnedFd>)> {
        let what = what_of(request.what).ok_or(CUresult::INVALID_VALUE);
        let mut entries = self.entries();
        if !entries.owners.contains_key(&owner.serial) {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut answer = Message::new_zeroed();
        match request.kind {
            kind::SHARE => {
                let (what, files) = (what?, usize::from(file.is_some()));
                let (tokens, own_files) = entries.owners.get(&owner.serial).copied().unwrap_or_default();
                if tokens >= PER_SESSION_MAX
                    || own_files.saturating_add(files) > FILES_PER_SESSION_MAX
                    || entries.files.saturating_add(files) > files_max()
                {
                    return Err(CUresult::OUT_OF_MEMORY);
                }
                let token = random()?;
                let entry =
                    Entry { owner: owner.serial, what, len: request.len, handle: request.handle, file };
                entries.by_token.insert(token, entry);
                entries
                    .owners
                    .insert(owner.serial, (tokens.saturating_add(1), own_files.saturating_add(files)));
                entries.files = entries.files.saturating_add(files);
                answer.token = token;
                Ok((answer, None))
            }
            kind::OPEN => {
                let what = what?;
                let entry = entries.by_token.get(&request.token).filter(|entry| entry.what == what);
                let entry = entry.ok_or(CUresult::INVALID_VALUE)?;
                let file = entry.file.as_ref().map(|file| file.as_fd().try_clone_to_owned()).transpose();
                let file = file.map_err(|_| CUresult::OPERATING_SYSTEM)?;
                (answer.len, answer.handle) = (entry.len, entry.handle);
                Ok((answer, file))
            }
            kind::WITHDRAW => {
                if entries.by_token.get(&request.token).is_some_and(|entry| entry.owner == owner.serial) {
                    entries.remove(&request.token);
                }
                Ok((answer, None))
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }
}

impl Owner {
    /// Has all requests from now on count as those of one moment: a test may be slow.
    #[cfg(test)]
    pub(crate) fn freeze(&self) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        *window = (Instant::now() + Duration::from_secs(3600), 0);
    }

    fn may_ask(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, asked) = &mut *window;
        if since.elapsed() >= WINDOW {
            (*since, *asked) = (Instant::now(), 0);
        }
        *asked = asked.saturating_add(1);
        *asked <= REQUESTS_MAX
    }
}

fn random() -> cuda_api::CuResult<Token> {
    let mut token = [0; TOKEN_BYTES];
    // SAFETY: room for as many bytes as are asked for. It is short only for more than 256, and waits at most for the kernel's
    // first seed.
    let filled = unsafe { libc::getrandom(token.as_mut_ptr().cast(), TOKEN_BYTES, 0) };
    if usize::try_from(filled) == Ok(TOKEN_BYTES) { Ok(token) } else { Err(CUresult::OPERATING_SYSTEM) }
}
