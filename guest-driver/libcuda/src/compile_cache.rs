//! What NVRTC has compiled before, kept in files between processes, as NVIDIA's driver keeps it for NVRTC. Without it,
//! programs that compile while they run (cuDNN's attention compiles a kernel for each new length of a sequence) pay 250 ms
//! again and again where the native ones pay 30.
//!
//! The files lie in `vgpu-nvrtc` in the folder that the driver's own cache would have: `CUDA_CACHE_PATH`, else
//! `~/.nv/ComputeCache`. `CUDA_CACHE_DISABLE=1` switches it off, `CUDA_CACHE_MAXSIZE` is the most bytes that its files may
//! have together. It is a cache: whatever fails is a miss.
//!
//! A file's name is the hash of everything that its content depends on ([`Key`]), and the file repeats it, with a hash of
//! the content: one that was cut short or belongs to something else is a miss. A file appears whole, by renaming.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const FOLDER: &str = "vgpu-nvrtc";
/// The first bytes of each file; the digit is the version of the layout.
const MAGIC: &[u8; 8] = b"VGPUNVC1";
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 2 * HASH_BYTES;
/// What is larger is compiled again each time.
const ENTRY_BYTES_MAX: u64 = 64 << 20;
/// As the driver's, where `CUDA_CACHE_MAXSIZE` says nothing.
const CACHE_BYTES: u64 = 1 << 30;
/// The driver's largest.
const CACHE_BYTES_MAX: u64 = 4 << 30;
/// A file that is being written is given up after this.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// The hash of what a compilation's result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; HASH_BYTES]);

impl Key {
    /// Of parts that are told apart by their lengths.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Key(hasher.finalize().into())
    }

    /// The hash.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A folder of results.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    bytes_max: u64,
}

impl Cache {
    /// As the environment has it, if it has one.
    #[must_use]
    pub fn of_environment() -> Option<Cache> {
        let word = |name| std::env::var(name).ok();
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        if transport::environment_is_foreign()
            || word("CUDA_CACHE_DISABLE").is_some_and(|value| value.trim() == "1")
        {
            return None;
        }
        let home = || path("HOME").map(|home| home.join(".nv/ComputeCache"));
        let place = path("CUDA_CACHE_PATH").or_else(home)?;
        let bytes_max = word("CUDA_CACHE_MAXSIZE").and_then(|value| value.trim().parse().ok());
        Some(Cache::new(&place, bytes_max.unwrap_or(CACHE_BYTES).min(CACHE_BYTES_MAX)))
    }

    fn new(place: &Path, bytes_max: u64) -> Cache {
        Cache { folder: place.join(FOLDER), bytes_max }
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.folder.join(blake3::Hash::from_bytes(key.0).to_hex().as_str())
    }

    /// What was stored under a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let mut file = File::open(self.file(key)).ok()?;
        let mut bytes = Vec::new();
        (&mut file).take(ENTRY_BYTES_MAX + HEADER_BYTES as u64).read_to_end(&mut bytes).ok()?;
        let content = bytes.get(HEADER_BYTES..)?;
        if bytes.get(..HEADER_BYTES)? != header(key, content) {
            return None;
        }
        // It was of use: it goes last. Where that cannot be noted, it goes sooner.
        let _ = file.set_modified(SystemTime::now());
        bytes.drain(..HEADER_BYTES);
        Some(bytes)
    }

    /// Stores a result; whether it is there now.
    pub fn put(&self, key: &Key, content: &[u8]) -> bool {
        let size = (HEADER_BYTES + content.len()) as u64;
        if content.len() as u64 > ENTRY_BYTES_MAX || size > self.bytes_max {
            return false;
        }
        if fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).is_err() {
            return false;
        }
        self.make_room(size);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished =
            self.folder.join(format!("{}-{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| {
                file.write_all(&header(key, content))?;
                file.write_all(content)
            })
            .and_then(|()| fs::rename(&unfinished, self.file(key)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.is_ok()
    }

    /// Removes what was used longest ago until so many more bytes have room, and what other processes left unfinished.
    fn make_room(&self, size: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let now = SystemTime::now();
        let (mut files, mut sum) = (Vec::new(), 0_u64);
        for entry in entries.flatten() {
            let Ok(about) = entry.metadata() else { continue };
            let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                if now.duration_since(used).is_ok_and(|age| age > UNFINISHED) {
                    let _ = fs::remove_file(path);
                }
                continue;
            }
            sum = sum.saturating_add(about.len());
            files.push((used, about.len(), path));
        }
        if sum.saturating_add(size) <= self.bytes_max {
            return;
        }
        // A quarter at a time, so that a full cache is not sorted for each new file.
        let wanted = (self.bytes_max / 4 * 3).saturating_sub(size);
        files.sort();
        for (_, bytes, path) in files {
            if sum <= wanted {
                break;
            }
            if fs::remove_file(path).is_ok() {
                sum = sum.saturating_sub(bytes);
            }
        }
    }
}

fn header(key: &Key, content: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, hashes) = header.split_at_mut(MAGIC.len());
    let (name, sum) = hashes.split_at_mut(HASH_BYTES);
    magic.copy_from_slice(MAGIC);
    name.copy_from_slice(key.bytes());
    sum.copy_from_slice(blake3::hash(content).as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::of(&[text.as_bytes()])
    }

    #[test]
    fn what_was_stored_comes_back_and_nothing_else_does() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path(), 1 << 20);
        assert_eq!(cache.get(&key("a")), None);
        assert!(cache.put(&key("a"), b"code") && cache.put(&key("empty"), b""));
        assert_eq!(cache.get(&key("a")).as_deref(), Some(b"code".as_slice()));
        assert_eq!(cache.get(&key("empty")).as_deref(), Some(b"".as_slice()));
        assert_eq!(cache.get(&key("b")), None);
        assert!(cache.put(&key("a"), b"other"));
        assert_eq!(cache.get(&key("a")).as_deref(), Some(b"other".as_slice()));
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
        assert_ne!(Key::of(&[b"ab"]), Key::of(&[b"ab", b""]));
    }

    #[test]
    fn a_damaged_file_is_a_miss() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path(), 1 << 20);
        for (name, change) in [
            ("shorter", Box::new(|bytes: &mut Vec<u8>| bytes.truncate(80)) as Box<dyn Fn(&mut Vec<u8>)>),
            ("nothing", Box::new(Vec::clear)),
            ("changed", Box::new(|bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1)),
            ("another's", Box::new(|bytes: &mut Vec<u8>| bytes[20] ^= 1)),
        ] {
            assert!(cache.put(&key(name), &[7; 100]));
            let file = cache.file(&key(name));
            let mut bytes = fs::read(&file).unwrap();
            change(&mut bytes);
            fs::write(&file, bytes).unwrap();
            assert_eq!(cache.get(&key(name)), None, "{name}");
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path(), 4096);
        let begin = SystemTime::now() - Duration::from_secs(1000);
        for (n, name) in ["first", "second", "third"].into_iter().enumerate() {
            assert!(cache.put(&key(name), &[1; 1000]));
            let used = begin + Duration::from_secs(n as u64);
            File::options().write(true).open(cache.file(&key(name))).unwrap().set_modified(used).unwrap();
        }
        assert!(cache.get(&key("first")).is_some());
        assert!(cache.put(&key("fourth"), &[1; 1000]));
        let there = ["first", "second", "third", "fourth"].map(|name| cache.get(&key(name)).is_some());
        assert_eq!(there, [true, false, false, true]);
        // What never has room is not stored, and removes nothing.
        assert!(!cache.put(&key("large"), &[1; 5000]));
        assert!(cache.get(&key("fourth")).is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_miss() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"").unwrap();
        let cache = Cache::new(&file, 1 << 20);
        assert!(!cache.put(&key("a"), b"code"));
        assert_eq!(cache.get(&key("a")), None);
    }
}
