use std::sync::Arc;
use std::sync::mpsc::channel;

use super::*;
use crate::image::unpack::{FLAG_LZ4, FLAG_ZSTD};

/// A fatbin of entries: kind, compute capability, flags, bytes, and how long they are unpacked.
fn fatbin(list: &[(u64, u32, u64, &[u8], usize)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, capability, flags, bytes, whole) in list {
        let mut header = vec![0u8; 64];
        header[..2].copy_from_slice(&u16::try_from(*kind).unwrap().to_le_bytes());
        header[4..8].copy_from_slice(&64u32.to_le_bytes());
        header[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        header[16..20].copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        header[28..32].copy_from_slice(&capability.to_le_bytes());
        header[40..48].copy_from_slice(&flags.to_le_bytes());
        header[56..64].copy_from_slice(&(*whole as u64).to_le_bytes());
        body.extend(header);
        body.extend_from_slice(bytes);
    }
    let mut image = vec![0u8; 16];
    image[..4].copy_from_slice(&FATBIN_MAGIC.to_le_bytes());
    image[6] = 16;
    image[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    image.extend(body);
    image
}

const PRINTS: &[u8] = b"....\0vprintf\0....";
const QUIET: &[u8] = b"....\0__assertfail\0....";

#[test]
fn what_the_device_runs_is_searched_and_nothing_else() {
    assert!(may_print(PRINTS, &[9]));
    assert!(!may_print(QUIET, &[9]));
    let plain = |kind, capability, bytes: &'static [u8]| (kind, capability, 0, bytes, bytes.len());
    let of = |list: &[_]| may_print(&fatbin(list), &[9]);
    assert!(of(&[plain(KIND_ELF, 80, QUIET), plain(KIND_ELF, 90, PRINTS)]));
    assert!(!of(&[plain(KIND_ELF, 80, PRINTS), plain(KIND_ELF, 90, QUIET), plain(KIND_PTX, 90, PRINTS)]));
    assert!(of(&[plain(KIND_ELF, 80, QUIET), plain(KIND_PTX, 80, PRINTS)]), "PTX is compiled for it");
    assert!(of(&[plain(KIND_ELF, 90, QUIET), plain(77, 90, PRINTS)]), "of an unknown kind");
    assert!(may_print(&fatbin(&[plain(KIND_ELF, 90, QUIET)])[..70], &[9]), "cut short");
}

#[test]
fn compressed_entries_are_unpacked() {
    let packed = lz4_flex::block::compress(PRINTS);
    let entry = |whole| fatbin(&[(KIND_ELF, 90, FLAG_LZ4, &packed, whole)]);
    assert!(may_print(&entry(PRINTS.len()), &[9]));
    let quiet = lz4_flex::block::compress(QUIET);
    assert!(!may_print(&fatbin(&[(KIND_ELF, 90, FLAG_LZ4, &quiet, QUIET.len())]), &[9]));
    assert!(may_print(&entry(1 << 40), &[9]), "more than is unpacked");
    assert!(may_print(&fatbin(&[(KIND_ELF, 90, FLAG_ZSTD, b"no zstd", 9)]), &[9]), "damaged");
}

#[derive(Default)]
struct Says(AtomicBool);

impl Completion for Says {
    fn page(&self) -> (std::ptr::NonNull<u8>, usize) {
        (std::ptr::NonNull::dangling(), 0)
    }
    fn word(&self, _: u32) -> Option<std::ptr::NonNull<u64>> {
        None
    }
    fn set_may_print(&self, may: bool) {
        self.0.store(may, Ordering::SeqCst);
    }
}

fn image(bytes: &[u8]) -> Arc<Given> {
    Arc::new(crate::image::Image::of(bytes).given())
}

#[test]
fn an_image_may_print_until_it_was_searched() {
    let says = Arc::new(Says::default());
    let prints = Prints::new(Some(says.clone()), vec![9]);
    let (sender, receiver) = channel();
    *lock(&prints.searcher) = Some(sender);
    prints.look_at(&image(QUIET));
    assert!(says.0.load(Ordering::SeqCst), "not searched yet");
    *lock(&prints.searcher) = None;
    search_all(&receiver, &prints.state, &*says, &[9]);
    assert!(!says.0.load(Ordering::SeqCst));
    let (sender, receiver) = channel();
    *lock(&prints.searcher) = Some(sender);
    prints.look_at(&image(PRINTS));
    prints.look_at(&image(QUIET));
    *lock(&prints.searcher) = None;
    search_all(&receiver, &prints.state, &*says, &[9]);
    assert!(says.0.load(Ordering::SeqCst), "one that prints is enough");
}
