//! Compiles the gRPC contracts; protox is a protobuf compiler in Rust, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["protocol.proto", "comet.proto", "delivery.proto", "logic.proto", "sessions.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    // No `connect` on the generated clients: `goim.logic.Logic` has a call of that name.
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
