use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

fn key(n: usize) -> Key {
    Key(value(n * 64))
}

fn value(n: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(n)
}

fn context(n: usize) -> CUcontext {
    CUcontext(0x5601_0000_0000 + n as u64 * 16)
}

#[test]
fn a_mirror_gives_what_was_put_in_last_and_nothing_else() {
    let mirror = Mirror::new();
    mirror.insert(context(1), key(1), value(11));
    mirror.insert(context(2), key(1), value(21));
    mirror.insert(context(1), key(2), value(12));
    assert_eq!(mirror.get(context(1), key(1)), Some(value(11)));
    assert_eq!(mirror.get(context(2), key(1)), Some(value(21)));
    assert_eq!(mirror.get(context(1), key(2)), Some(value(12)));
    assert_eq!(mirror.get(context(2), key(2)), None);
    mirror.insert(context(1), key(1), value(13));
    assert_eq!(mirror.get(context(1), key(1)), Some(value(13)));
    mirror.remove(context(1), key(1));
    mirror.remove(context(1), key(9));
    assert_eq!(mirror.get(context(1), key(1)), None);
    assert_eq!(mirror.get(context(2), key(1)), Some(value(21)));
}

#[test]
fn a_full_mirror_forgets_but_never_lies() {
    let mirror = Mirror::new();
    for n in 1..2000 {
        mirror.insert(context(n % 7), key(n), value(n));
    }
    let found = (1..2000).filter(|n| match mirror.get(context(*n % 7), key(*n)) {
        None => false,
        Some(v) => {
            assert_eq!(v, value(*n));
            true
        }
    });
    assert!((64..=256).contains(&found.count()));
}

#[test]
fn readers_never_see_half_of_an_entry() {
    static MIRROR: Mirror = Mirror::new();
    static STOP: AtomicBool = AtomicBool::new(false);
    static HITS: AtomicUsize = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !STOP.load(Ordering::Relaxed) {
                    for n in 1..40 {
                        if let Some(v) = MIRROR.get(context(n), key(n)) {
                            assert_eq!(v.addr() % 1000, n);
                            HITS.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let mut round = 0;
        while round < 2000 || HITS.load(Ordering::Relaxed) == 0 {
            round += 1;
            for n in 1..40 {
                MIRROR.insert(context(n), key(n), value(round % 100 * 1000 + n));
                if round % 3 == 0 {
                    MIRROR.remove(context(n), key(n));
                }
            }
        }
        STOP.store(true, Ordering::Relaxed);
    });
}

#[test]
fn before_cu_init_every_call_is_refused() {
    assert_eq!(get(CUcontext::NULL, key(1)), Err(CUresult::NOT_INITIALIZED));
    assert_eq!(put(context(1), key(1), value(1), None), Err(CUresult::NOT_INITIALIZED));
    assert_eq!(delete(context(1), key(1)), Err(CUresult::NOT_INITIALIZED));
}

/// Puts an entry as `put` does, for a context that the rest of the library does not know.
fn force(ctx: CUcontext, key: Key, value: *mut c_void, destructor: Option<Destructor>) {
    state().entry(ctx).or_default().push(Entry { key, value, destructor });
    MIRROR.insert(ctx, key, value);
}

thread_local! {
    static DESTROYED: RefCell<Vec<(CUcontext, usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Finds its own entry still there, as with driver 580; adds one that goes too; and notes what it was called with.
unsafe extern "C" fn note(ctx: CUcontext, key: *mut c_void, value: *mut c_void) {
    assert_eq!(MIRROR.get(ctx, Key(key)), Some(value));
    assert!(state()[&ctx].iter().any(|entry| entry.key == Key(key)));
    force(ctx, self::key(99), self::value(9), None);
    DESTROYED.with_borrow_mut(|d| d.push((ctx, key.addr() / 64, value.addr())));
}

/// Deletes its own entry.
unsafe extern "C" fn delete_itself(ctx: CUcontext, key: *mut c_void, _value: *mut c_void) {
    assert!(remove(&mut state(), ctx, Key(key)));
}

#[test]
fn destructors_run_once_when_their_context_ends_the_latest_first() {
    let (ending, other) = (context(100), context(101));
    force(ending, key(1), value(5), Some(note));
    force(ending, key(2), value(6), None);
    force(ending, key(4), value(6), Some(delete_itself));
    force(ending, key(3), value(7), Some(note));
    force(other, key(1), value(8), Some(note));
    context_destroyed(ending);
    context_destroyed(ending);
    assert_eq!(DESTROYED.take(), [(ending, 3, 7), (ending, 1, 5)]);
    assert!(!state().contains_key(&ending));
    for n in [1, 2, 3, 4, 99] {
        assert_eq!(MIRROR.get(ending, key(n)), None);
    }
    assert_eq!(MIRROR.get(other, key(1)), Some(value(8)));
    context_destroyed(other);
    context_destroyed(CUcontext::NULL);
    assert_eq!(DESTROYED.take(), [(other, 1, 8)]);
    assert!(!state().contains_key(&other));
}
