// SPDX-License-Identifier: GPL-2.0

//! How the library is linked.

fn main() {
    // A symbol that the C library does not have would end every program that is started with it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,defs,-z,now");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsmc-preload.so");
    // The libc crate leaves that to Rust's run-time, which is not here, as soon as another tool takes its feature std.
    println!("cargo:rustc-link-lib=c");
    println!("cargo:rerun-if-changed=build.rs");
}
