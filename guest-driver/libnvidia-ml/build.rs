//! The library's own name, by which programs and linkers ask for it. And that it stays once loaded: programs that look for GPUs open
//! and close it again and again, and a handle of the first time may come back in the second.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
