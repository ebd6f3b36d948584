//! The admin listener and the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use chancery_testkit::{Lab, wait_until};
use serde_json::{Value, json};

use super::{AUDIENCE, lab};

fn metric(lab: &Lab, name: &str) -> Option<f64> {
    let text = lab.web.get(&format!("{}/metrics", lab.admin_url())).text();
    let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn health_and_metrics_tell_what_happens() {
    let lab = lab();
    let admin = lab.admin_url();
    assert_eq!(lab.web.get(&format!("{admin}/healthz")).status, 200);
    assert_eq!(lab.web.get(&format!("{admin}/readyz")).status, 200);
    let metrics = lab.web.get(&format!("{admin}/metrics"));
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text().ends_with("# EOF\n"));

    let tokens = "chancery_tokens_released_total{realm=\"consumers\"}";
    let refused = "chancery_refusals_total{code=\"audience_not_granted\"}";
    assert_eq!((metric(&lab, tokens), metric(&lab, refused)), (None, None));
    let client = lab.demo();
    for _ in 0..3 {
        let _ = lab.token(&client, "consumers", AUDIENCE);
    }
    let _ = lab.issue(&client, "consumers", vec![json!({"aud": "other"})]);
    assert_eq!((metric(&lab, tokens), metric(&lab, refused)), (Some(3.0), Some(1.0)));
    assert_eq!(metric(&lab, "chancery_signer_connected"), Some(1.0));
    assert!(metric(&lab, "chancery_wal_append_seconds_count").unwrap() >= 4.0);
    wait_until("the signer's report", Duration::from_secs(20), || {
        metric(&lab, "chancery_signer_clock_trusted") == Some(1.0)
            && metric(&lab, "chancery_published_entries").unwrap_or(0.0) > 5.0
    });
    let overdue = "chancery_active_key_overdue{realm=\"consumers\",algorithm=\"ES256\"}";
    assert_eq!(metric(&lab, overdue), Some(0.0));

    let starts = metric(&lab, "chancery_signer_starts_total").unwrap();
    lab.kill_signer();
    wait_until("the next signer", Duration::from_secs(30), || {
        metric(&lab, "chancery_signer_starts_total") == Some(starts + 1.0) && lab.is_ready()
    });
}

#[test]
fn the_admin_listener_changes_nothing_and_issues_nothing() {
    let lab = lab();
    let admin = lab.admin_url();
    for path in ["/", "/signers", "/consumers/jwks.json", "/keys", "/consumers/token"] {
        assert_eq!(lab.web.get(&format!("{admin}{path}")).status, 404, "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = lab.web.send(method, &format!("{admin}{path}"), &[], b"x");
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(lab.web.get(&format!("{}{path}", lab.url())).status, 404, "public {path}");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// One line to the control socket, and the line that comes back.
fn converse(lab: &Lab, line: &[u8]) -> String {
    let mut stream = UnixStream::connect(lab.data().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The service may have answered and closed before the last byte.
    let _ = stream.write_all(line);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = BufReader::new(stream).read_line(&mut answer);
    answer
}

#[test]
fn the_control_socket_is_its_owners() {
    let lab = lab();
    assert_eq!(mode(lab.data()), 0o700);
    assert_eq!(mode(&lab.data().join("control.sock")), 0o600);
    assert_eq!(mode(&lab.signer_socket()), 0o600);
    assert_eq!(mode(&lab.data().join("demo-client.pem")), 0o600);
    assert_eq!(mode(&lab.data().join("lock")), 0o600);

    let info: Value = serde_json::from_str(&converse(&lab, b"{\"command\":\"info\"}\n")).unwrap();
    assert_eq!(info["url"], lab.url());
    assert_eq!(info["ready"], true);
    let bad: [&[u8]; 5] = [
        b"nonsense\n",
        b"{\"command\":\"no_such\"}\n",
        b"{\"command\":\"rotate\"}\n",
        b"{\"command\":\"rotate\",\"realm\":\"consumers\",\"extra\":1}\n",
        b"",
    ];
    for line in bad {
        let answer: Value = serde_json::from_str(&converse(&lab, line)).unwrap();
        assert!(answer["error"].as_str().is_some_and(|e| e.contains("not a command")), "{answer}");
    }
    let huge = vec![b'{'; 1 << 20];
    let answer = converse(&lab, &huge);
    assert!(answer.is_empty() || answer.contains("error"), "{answer}");
    // Somebody who connects and says nothing holds up nobody.
    let _silent = UnixStream::connect(lab.data().join("control.sock")).unwrap();
    assert!(converse(&lab, b"{\"command\":\"keys\"}\n").contains("active"));
}
