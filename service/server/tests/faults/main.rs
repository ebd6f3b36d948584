//! Faults of disks, stores, configurations and keys, tried on the real binaries.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

mod bindings;
mod disk;
mod keys;
mod reload;

use chancery_testkit::{ClientText, Lab, RealmText, TestClient, grant};
use chancery_token::Algorithm;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";

/// A client with a key of its own.
fn client(id: &str) -> TestClient {
    TestClient::new(id, Algorithm::Es256)
}

/// Configures one realm, `r`, with ES256 and these clients.
fn configure(lab: &mut Lab, top: &str, schedule: &str, clients: &[&TestClient]) {
    let text = |c: &&TestClient| ClientText::new(c, "", &[grant("api", &[AUDIENCE], "")]);
    let clients = clients.iter().map(text).collect();
    lab.configure(top, &[RealmText { name: "r", algorithms: &["ES256"], schedule, clients }]);
}
