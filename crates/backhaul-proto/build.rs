//! Turns schemas/wire into Rust, without an external compiler.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../schemas/wire";
    let file = format!("{root}/backhaul.proto");
    println!("cargo:rerun-if-changed={file}");
    let set = protox::compile([&file], [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(set)?;
    Ok(())
}
