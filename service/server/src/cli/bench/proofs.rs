//! Clients, and their requests made ahead: whole HTTP requests, ready to be sent.

use std::num::NonZeroUsize;

use chancery_policy::document::{ClientDocument, GrantDocument};
use chancery_token::Algorithm;
use chancery_token::client::ClientKey;
use serde_json::json;

use crate::cli::client::Client;

use super::host::{Host, REALM};

/// Algorithm of the clients' keys.
pub const CLIENT_ALGORITHM: Algorithm = Algorithm::Es256;
/// What the tokens are for.
pub const AUDIENCE: &str = "https://api.example";
/// Clients that ask in turn.
const CLIENTS: usize = 8;
/// Every proof of a run is remembered until it expires.
const REPLAY_CAPACITY: u32 = 4_000_000;
/// Subjects that batches ask for, in turn.
const SUBJECTS: u32 = 100_000;

/// Some clients of the bench realm.
pub struct Clients {
    clients: Vec<Client>,
    documents: Vec<ClientDocument>,
}

impl Clients {
    /// Fresh keys.
    pub fn generate() -> anyhow::Result<Self> {
        let (mut clients, mut documents) = (Vec::new(), Vec::new());
        for number in 0..CLIENTS {
            let id = format!("bench-{number}");
            let key = ClientKey::generate(CLIENT_ALGORITHM)?;
            documents.push(document(&id, &key));
            clients.push(Client::new(&id, key));
        }
        Ok(Self { clients, documents })
    }

    /// What the policy says of them.
    pub fn documents(&self) -> Vec<ClientDocument> {
        self.documents.clone()
    }

    /// `count` requests for `batch` tokens each, made by all cores.
    pub fn requests(&self, host: &Host, batch: u16, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = count.div_ceil(cores);
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..cores).map(|_| scope.spawn(move || self.share(host, batch, share))).collect();
            let mut all = Vec::with_capacity(count);
            for worker in workers {
                let made = worker.join().map_err(|_| anyhow::anyhow!("a worker failed"))?;
                all.extend(made?);
            }
            Ok(all)
        })
    }

    fn share(&self, host: &Host, batch: u16, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let clients = self.clients.iter().cycle();
        clients.take(count).map(|client| request(client, host, batch)).collect()
    }
}

fn document(id: &str, key: &ClientKey) -> ClientDocument {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    ClientDocument {
        id: id.to_owned(),
        keys: vec![key.signing_key().public().jwk()],
        grants: vec![GrantDocument {
            name: "bench".to_owned(),
            audiences: texts(&[AUDIENCE]),
            subjects: texts(&[id, "user:*"]),
            scopes: texts(&["read", "write"]),
            claims: texts(&["tier"]),
            max_lifetime_s: None,
            algorithms: None,
            require_cnf: false,
            max_audiences: 1,
        }],
        max_tokens_per_s: None,
        replay_capacity: REPLAY_CAPACITY,
        accept_eddsa: false,
    }
}

/// One whole HTTP request.
fn request(client: &Client, host: &Host, batch: u16) -> anyhow::Result<Vec<u8>> {
    if batch == 1 {
        let assertion = client.assertion(&host.issuer, Some(&host.log))?;
        let body = format!(
            "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
             client-assertion-type%3Ajwt-bearer&client_assertion={assertion}&scope=read+write"
        );
        return Ok(post(host, "token", "application/x-www-form-urlencoded", &body));
    }
    let mut first = [0; 4];
    aws_lc_rs::rand::fill(&mut first).map_err(|_| anyhow::anyhow!("no randomness"))?;
    let first = u32::from_be_bytes(first);
    let asks = (0..u32::from(batch)).map(|number| {
        let user = first.wrapping_add(number) % SUBJECTS;
        json!({
            "sub": format!("user:{user}"),
            "aud": AUDIENCE,
            "scope": "read write",
            "claims": {"tier": "gold"},
        })
    });
    let jws = client.request(&host.issuer, Some(&host.log), asks.collect())?;
    Ok(post(host, "issue", "application/jwt", &jws))
}

fn post(host: &Host, path: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /{REALM}/{path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: \
         {}\r\n\r\n{body}",
        host.address,
        body.len()
    )
    .into_bytes()
}
