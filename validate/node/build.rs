//! What the linker of each platform must be told for an addon.

fn main() {
    napi_build::setup();
}
