//! Profiles of sessions.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mediator::WakeKind;

use crate::echo::call;
use crate::guest::{Guest, start_vm};

pub const TESTS: &[(&str, fn())] = &[
    ("calls_and_waits_are_measured", calls_and_waits_are_measured),
    ("every_end_of_a_session_leaves_its_profile", every_end_of_a_session_leaves_its_profile),
];

/// A folder that does not exist yet.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sessions-profiles-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// The profile of the session in a slot; the guests have the same process id.
fn profile(folder: &Path, session: u32) -> String {
    std::fs::read_to_string(folder.join(format!("vm7-session{session}-4711.json"))).unwrap_or_default()
}

/// The number after `"name": `.
fn number(text: &str, name: &str) -> f64 {
    let (_, rest) = text.split_once(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("{name} in {text}"));
    let end = rest.find([',', '}']).expect("an end");
    rest[..end].parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn calls_and_waits_are_measured() {
    let folder = folder();
    let (vm, kernel) = start_vm(|config| config.profile = Some(folder.clone()));
    let guest = Guest::open(&vm, &kernel, 3, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    (0..5).for_each(|_| drop(one.call(call::ECHO, &[1; 8])));
    two.call(call::ECHO, &[]);
    one.post(call::SLOW, &30u64.to_le_bytes());
    // Has to wait for the one before.
    two.call(call::READ_LOG, &[]);
    std::thread::sleep(Duration::from_millis(50));
    two.call(call::ECHO, &[]);
    vm.write_profiles();
    let so_far = profile(&folder, 3);
    assert!(so_far.contains(&format!("\"id\": {}, \"waited\": 7, \"count\": 7,", call::ECHO)), "{so_far}");
    assert!(so_far.contains(&format!("\"id\": {}, \"waited\": 0, \"count\": 1,", call::SLOW)), "{so_far}");
    let at_least = |name, us: f64| assert!(number(&so_far, name) >= us, "{name} in {so_far}");
    at_least("busy_us", 30_000.0);
    at_least("parked_us", 40_000.0);
    at_least("order_wait_us", 10_000.0);
    at_least("duration_us", 80_000.0);
    assert!(number(&so_far, "polled_us") > 0.0);
    let first = so_far.split_once("\"calls\": [").expect("calls").1;
    assert_eq!(number(first, "id"), f64::from(call::SLOW), "what took longest comes first: {so_far}");
    two.call(call::ECHO, &[]);
    guest.close().expect("closed");
    let last = profile(&folder, 3);
    assert!(last.contains(&format!("\"id\": {}, \"waited\": 8, \"count\": 8,", call::ECHO)), "{last}");
    let table = std::fs::read_to_string(folder.join("vm7-session3-4711.txt")).expect("a table");
    assert!(table.starts_with("VM 7 session 3: guest process 4711, worker "), "{table}");
    std::fs::remove_dir_all(folder).expect("removed");
}

fn every_end_of_a_session_leaves_its_profile() {
    let folder = folder();
    let (vm, kernel) = start_vm(|config| config.profile = Some(folder.clone()));
    let guests: Vec<Guest> = (0..3).map(|id| Guest::open(&vm, &kernel, id, WakeKind::Event)).collect();
    guests.iter().for_each(|guest| drop(guest.ring(0).call(call::ECHO, &[])));
    guests[0].close().expect("closed");
    // One whose worker has ended by itself is closed like any other.
    assert!(guests[1].ring(1).try_call(call::PANIC, &[]).is_err());
    guests[1].close().expect("closed");
    assert_eq!(profile(&folder, 2), "", "an open session has none yet");
    vm.shut_down();
    for session in 0..3 {
        assert!(profile(&folder, session).contains("\"count\": 1,"), "session {session}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}
