//! Workers that are initialised before a session comes.

use std::time::Duration;

use mediator::WakeKind;

use crate::echo::{BROKEN_GPU_VM, GPU_VM, call};
use crate::guest::{Guest, start_vm};

pub const TESTS: &[(&str, fn())] = &[
    (
        "a_worker_is_initialised_ahead_unless_variables_come",
        a_worker_is_initialised_ahead_unless_variables_come,
    ),
    (
        "a_worker_that_cannot_be_initialised_ahead_is_passed_over",
        a_worker_that_cannot_be_initialised_ahead_is_passed_over,
    ),
];

fn a_worker_is_initialised_ahead_unless_variables_come() {
    let (vm, kernel) = start_vm(|config| {
        config.vm_id = GPU_VM;
        config.visible_devices = Some("4,2".to_owned());
    });
    let look = |id, env: &[u8]| {
        let guest = Guest::open_with(&vm, &kernel, id, WakeKind::Event, |open| open.env = env.to_vec());
        let mut ring = guest.ring(0);
        let initialised = ring.numbers(call::INITIALISED, &[])[0] == 1;
        let visible = ring.text(call::ENV, b"CUDA_VISIBLE_DEVICES");
        let mode = ring.text(call::ENV, b"CUDA_MODULE_LOADING");
        guest.close().expect("closed");
        (initialised, visible, mode)
    };
    let devices = || "4,2".to_owned();
    // The first workers take their time, and so do those that take their place.
    for env in [&b""[..], b"CUDA_MODULE_LOADING=LAZY\0"] {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(look(0, env), (true, devices(), String::new()));
    }
    assert_eq!(look(0, b"CUDA_MODULE_LOADING=EAGER\0"), (false, devices(), "EAGER".to_owned()));
    assert_eq!(look(0, b"CUDA_VISIBLE_DEVICES=1\0"), (false, "2".to_owned(), String::new()));
}

fn a_worker_that_cannot_be_initialised_ahead_is_passed_over() {
    let (vm, kernel) = start_vm(|config| config.vm_id = BROKEN_GPU_VM);
    for id in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        let guest = Guest::open_with(&vm, &kernel, id, WakeKind::Event, |open| open.env.clear());
        assert_eq!(guest.ring(0).numbers(call::INITIALISED, &[]), [0]);
    }
    assert_eq!(kernel.deaths(), 0);
}
