//! Sessions from end to end: a supervisor in this process, workers that are this same program, guests in between.

#![allow(clippy::cast_possible_truncation, reason = "the tests choose the numbers, and run on 64 bits")]

mod ahead;
mod echo;
mod guest;
mod hostile;
mod kernels;
mod life;
mod order;
mod profile;
mod regions;
mod shares;
mod suspend;
mod wakes;

use libtest_mimic::{Arguments, Trial};
use mediator::worker::Role;

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    if Role::of_this_process().is_some() {
        if std::env::args_os().any(|word| word == kernels::REAL) {
            mediator::worker::main(mediator::executor::Program::default());
        }
        mediator::worker::main(echo::Echo::default());
    }
    let tests = [
        life::TESTS,
        ahead::TESTS,
        profile::TESTS,
        order::TESTS,
        hostile::TESTS,
        regions::TESTS,
        shares::TESTS,
        kernels::TESTS,
        suspend::TESTS,
        wakes::TESTS,
    ]
    .concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    let mut arguments = Arguments::from_args();
    // The tests count this process's descriptors and children.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
