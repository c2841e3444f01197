//! `fastcontainer-shim`.
fn main() {}
