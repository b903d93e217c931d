//! The library's own name: what programs that link it will ask for. And that it stays once loaded: threads call into it when they
//! end, whether or not a program has closed it (programs that look for GPUs open and close it).

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
