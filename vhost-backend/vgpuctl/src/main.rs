//! The program `vgpuctl`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vgpuctl::main()
}
