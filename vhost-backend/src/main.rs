//! The program `vhost-user-vgpu`. Everything but the reading of its arguments is in the library.

fn main() -> std::process::ExitCode {
    vhost_backend::program::main()
}
