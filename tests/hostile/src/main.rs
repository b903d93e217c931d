//! `hostile-guest SEED SECONDS`: a process in a VM that owns `/dev/vgpu` and means harm. Prints what it played; status 0 means that
//! it was not let down by the kernel in a way that it can see.

use std::process::ExitCode;
use std::time::Duration;

use hostile::local::Until;
use hostile::{Random, guest};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (Some(Ok(seed)), Some(Ok(seconds))) = (numbers.next(), numbers.next()) else {
        eprintln!("hostile-guest SEED SECONDS");
        return ExitCode::from(2);
    };
    let shares: u32 = guest::FAMILIES.iter().map(|(_, share, _)| share).sum();
    for (i, (name, share, family)) in guest::FAMILIES.iter().enumerate() {
        let seed = seed + i as u64;
        let until = Until::after(Duration::from_secs(seconds) * *share / shares);
        match family(&mut Random::new(seed), until) {
            Ok(tally) => println!("{name}, seed {seed}: {tally}"),
            Err(error) => {
                eprintln!("{name}, seed {seed}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
