//! The binary answers. A test here also makes `cargo test --workspace` build it for the end-to-end tests.

use std::process::Command;

#[test]
fn the_binary_tells_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_temper")).arg("--version").output().expect("it runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), concat!("temper ", env!("CARGO_PKG_VERSION")));
}
