//! The contract between kube-apiserver and an external JWT signer, kept without a cluster.
//!
//! `player.rs` plays kube-apiserver 1.36: it enforces what the real one enforces, its refusals
//! included. `rules.rs` shows it signers that misbehave in one way each, and that it refuses exactly
//! those: a player that accepts everything would show nothing. `service.rs` then lets it meet the real
//! service and signer, over the socket. What was observed of the real one, sentence by sentence, is
//! what the tests are named after; `wire.rs` is gRPC, written out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

mod keys;
mod player;
mod rules;
mod service;
mod stub;
mod wire;

use player::TokenRequest;

/// kubeadm's default.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// `kubectl create token`.
fn request(audience: &str, expiration_s: i64) -> TokenRequest {
    TokenRequest {
        namespace: "default".to_owned(),
        account: "web".to_owned(),
        audiences: vec![audience.to_owned()],
        expiration_s,
        pod: None,
    }
}

/// A kubelet, for a pod's token volume.
fn of_a_pod(audience: &str, expiration_s: i64) -> TokenRequest {
    TokenRequest { pod: Some("web-0".to_owned()), ..request(audience, expiration_s) }
}
