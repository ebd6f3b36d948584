//! Two deployments witness each other, `release = "witnessed"` (INVARIANT I2): tokens leave under a
//! cosigned directory only; a copy of a deployment, a rolled back one and one whose witnesses are away
//! get no cosignature, no token, and say so.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chancery_testkit::{
    Answer, ClientText, Lab, RealmText, TestClient, WitnessProcess, grant, wait_until,
};
use chancery_tlog::policy::Policy;
use chancery_token::Algorithm;
use serde_json::json;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";
const PATIENCE: Duration = Duration::from_secs(90);

/// A deployment and the witness that it runs for others.
struct Deployment {
    lab: Lab,
    client: TestClient,
    witness: WitnessProcess,
}

impl Deployment {
    fn new(name: &str) -> Self {
        let client = TestClient::new("c", Algorithm::Es256);
        let witness = WitnessProcess::new(CHANCERY, name);
        Self { lab: Lab::new(CHANCERY), client, witness }
    }

    fn configure(&mut self, witnesses: &[&WitnessProcess], threshold: &str, release: &str) {
        let clients = vec![ClientText::new(&self.client, "", &[grant("api", &[AUDIENCE], "")])];
        let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
        let mut top = format!("release = \"{release}\"\nquorum = \"g\"\n");
        let mut names = Vec::new();
        for (at, witness) in witnesses.iter().enumerate() {
            let (vkey, url) = (witness.vkeys().into_iter().next().unwrap(), witness.url());
            top.push_str(&format!(
                "[[witness]]\nname = \"w{at}\"\nvkey = \"{vkey}\"\nurl = \"{url}\"\n"
            ));
            names.push(format!("\"w{at}\""));
        }
        let members = names.join(", ");
        top.push_str(&format!(
            "[[witness_group]]\nname = \"g\"\nthreshold = \"{threshold}\"\nmembers = [{members}]\n"
        ));
        self.lab.configure(&top, &[realm]);
    }

    fn directory(&self, path: &str) -> Answer {
        self.lab.web.get(&format!("{}/directory/{path}", self.lab.url()))
    }

    fn vkey(&self) -> String {
        self.directory("vkey").text().trim_end().to_owned()
    }

    fn ask(&self) -> Answer {
        self.lab.issue(&self.client, "r", vec![json!({"aud": AUDIENCE})])
    }

    fn issues(&self) -> bool {
        let attached = |s: &serde_json::Value| s.get("attached") == Some(&json!(true));
        if !self.lab.signers().iter().any(attached) {
            return false;
        }
        let answer = self.ask();
        answer.status == 200 && answer.json().pointer("/tokens/0/access_token").is_some()
    }

    fn size(&self) -> u64 {
        self.directory("checkpoint").text().lines().nth(1).unwrap().parse().unwrap()
    }

    /// Whether the served checkpoint is one that the served policy accepts.
    fn is_witnessed(&self) -> bool {
        let policy = Policy::parse(self.directory("policy").body).unwrap();
        assert!(policy.quorum().is_some());
        policy.open(&self.directory("checkpoint").body, &[]).is_ok()
    }

    fn metric(&self, line: &str) -> bool {
        self.lab.web.get(&format!("{}/metrics", self.lab.admin_url())).text().contains(line)
    }

    fn stop(&mut self) {
        let _ = self.lab.run(&["signer", "end"]);
        assert_eq!(self.lab.stop().code, Some(0));
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Two deployments whose tokens wait for each other's witnesses.
fn pair() -> (Deployment, Deployment) {
    let (mut a, mut b) = (Deployment::new("a.example/w"), Deployment::new("b.example/w"));
    a.configure(&[&b.witness], "all", "witnessed");
    b.configure(&[&a.witness], "all", "witnessed");
    a.lab.start();
    b.lab.start();
    let (of_a, of_b) = (a.vkey(), b.vkey());
    a.witness.start(&[of_b]);
    b.witness.start(&[of_a]);
    for deployment in [&a, &b] {
        wait_until("witnessed tokens", PATIENCE, || deployment.issues());
    }
    (a, b)
}

#[test]
fn two_deployments_witness_each_other_and_a_fork_of_one_is_found_out() {
    let (mut a, b) = pair();
    for deployment in [&a, &b] {
        wait_until("a witnessed directory", PATIENCE, || deployment.is_witnessed());
        let token = deployment.lab.token(&deployment.client, "r", AUDIENCE);
        assert_eq!(token.split('.').count(), 3);
        assert_eq!(deployment.lab.check_logs(), 1);
    }
    // Split view: the same directory, its key included, goes on in two places.
    a.stop();
    let last = fs::read_to_string(a.lab.data().join("store/directory/checkpoint")).unwrap();
    let common: u64 = last.lines().nth(1).unwrap().parse().unwrap();
    let (original, other) = (a.lab.data().to_owned(), a.lab.folder().join("copy"));
    copy(&original, &other);
    a.lab.start();
    wait_until("the original goes on", PATIENCE, || a.issues());
    wait_until("a witnessed directory", PATIENCE, || a.is_witnessed());
    let seen = a.size();
    assert!(seen > common);
    a.stop();

    a.lab.set_data(&other);
    a.lab.spawn();
    wait_until("the copy answers", PATIENCE, || {
        a.lab.web.try_send("GET", &format!("{}/signers", a.lab.url()), &[], b"").is_ok()
    });
    wait_until("the alarm", PATIENCE, || a.lab.log().contains("ALARM: "));
    let found = |kind: &str| {
        a.metric(&format!(r#"chancery_witness_alarm{{witness="w0",kind="{kind}"}} 1"#))
    };
    assert!(found("ahead") || found("inconsistent"), "{}", a.lab.log());
    let started = Instant::now();
    // Beyond the original's size it is a history of its own, and gets a 422.
    wait_until("the other alarm", PATIENCE, || {
        assert!(!a.issues(), "a token left under a forked directory");
        let is_old = a.size() <= common;
        assert!(is_old || !a.is_witnessed(), "a forked directory was cosigned");
        found("inconsistent") || started.elapsed() > PATIENCE / 2
    });
    assert!(a.size() <= seen || found("inconsistent"), "{}", a.lab.log());
    assert!(!a.lab.is_ready());
    a.stop();

    // The original is what the witness holds, and goes on.
    a.lab.set_data(&original);
    a.lab.start();
    wait_until("the original goes on", PATIENCE, || a.issues());
    assert!(b.issues());
}

#[test]
fn without_its_witness_a_deployment_says_so_soon_and_recovers() {
    let (mut a, b) = pair();
    a.witness.kill();
    // The first requests wait for what may come; then it is said at once.
    wait_until("a clear refusal", PATIENCE, || {
        let answer = b.ask();
        assert_ne!(answer.status, 200);
        answer.text().contains("witnesses do not cosign")
    });
    let started = Instant::now();
    assert_eq!(b.ask().status, 503);
    assert!(started.elapsed() < Duration::from_secs(2));
    let ready = b.lab.web.get(&format!("{}/readyz", b.lab.admin_url()));
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("witnesses do not cosign"), "{}", ready.text());
    // What was left behind is void; then the log goes on, and so does everything else.
    let vkey = b.vkey();
    a.witness.start(&[vkey]);
    wait_until("tokens again", PATIENCE, || b.issues());
    wait_until("readiness", PATIENCE, || b.lab.is_ready());
    assert_eq!(b.lab.check_logs(), 1);
}

#[test]
fn a_living_signer_and_a_new_service_go_on_where_they_were() {
    let (mut a, _b) = pair();
    for _ in 0..3 {
        a.lab.kill_service();
        a.lab.start();
        wait_until("tokens again", PATIENCE, || a.issues());
    }
    a.lab.kill_signer();
    wait_until("tokens of another signer", PATIENCE, || a.issues());
    assert_eq!(a.lab.check_logs(), 2);
}

#[test]
fn where_tokens_do_not_wait_a_witness_that_is_away_costs_nothing() {
    let mut a = Deployment::new("a.example/w");
    let mut helper = WitnessProcess::new(CHANCERY, "b.example/w");
    a.configure(&[&helper], "any", "committed");
    a.lab.start();
    let started = Instant::now();
    for _ in 0..10 {
        assert!(a.issues());
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(!a.is_witnessed());
    helper.start(&[a.vkey()]);
    // Nothing happens in between: the checkpoint that is published is shown again.
    wait_until("cosignatures", PATIENCE, || a.is_witnessed());
    assert!(a.metric(r#"chancery_witness_cosigned_size{witness="w0"}"#));
    assert!(a.lab.is_ready());
}
