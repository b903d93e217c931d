//! The program `vgpu-smi`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vgpu_smi::run(std::env::args_os()))
}
