use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

const KEY: &str =
    r#"{ kty = "OKP", crv = "Ed25519", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }"#;

/// A file with every table; tests replace a line or add one.
fn file() -> String {
    format!(
        r#"base_url = "https://issuer.example"
wal_segment_mib = 64
unverified_per_s = 20

[[realms]]
name = "main"
issuer = "https://issuer.example/main"
algorithms = ["ES256", "RS256"]
rsa_bits = 2048

[realms.schedule]
rotate_every_s = 3600
publish_lead_s = 300
max_lifetime_s = 3600
skew_s = 30

[[realms.clients]]
id = "orders"
keys = [{KEY}]
replay_capacity = 100000

[[realms.clients.grants]]
name = "orders"
audiences = ["https://stock.example"]
max_audiences = 1
"#
    )
}

fn refusal(text: &str) -> String {
    match Config::parse(text) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("accepted: {text}"),
    }
}

/// The error for the file with one line replaced.
fn with(from: &str, to: &str) -> String {
    assert!(file().contains(from), "{from}");
    refusal(&file().replacen(from, to, 1))
}

/// The file with a `[storage]` table.
fn stored(lines: &str) -> String {
    file().replacen("[[realms]]", &format!("[storage]\n{lines}\n\n[[realms]]"), 1)
}

#[test]
fn storage_is_a_folder_of_the_data_folder_or_what_one_url_says() {
    let folder = Path::new("/data/store");
    let config = Config::parse(&file()).unwrap();
    assert_eq!(config.storage.location(folder).unwrap(), Location::of_folder(folder.to_owned()));
    assert!(!config.storage.is_first());
    let config = Config::parse(&stored("durability = \"store\"")).unwrap();
    assert!(config.storage.is_first());
    let config = Config::parse(&stored("url = \"s3://bucket/prefix\"")).unwrap();
    assert_eq!(config.storage.location(folder).unwrap().to_string(), "s3://bucket/prefix");
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
}

#[test]
fn storage_that_means_nothing_is_refused_by_name() {
    for (lines, names) in [
        ("url = \"ftp://bucket\"", "storage.url `ftp://bucket`"),
        ("url = \"s3://\"", "storage.url `s3://`"),
        ("endpoint = \"http://127.0.0.1:1\"", "storage.endpoint"),
        ("url = \"s3://b\"\nendpoint = \"somewhere\"", "storage.endpoint `somewhere`"),
        ("durability = \"both\"", "durability"),
        ("bucket = \"b\"", "bucket"),
    ] {
        let error = refusal(&stored(lines));
        assert!(error.contains(names), "{lines}: {error}");
    }
    let plain = stored("url = \"s3://b\"\nendpoint = \"http://store.example\"");
    let warnings = Config::parse(&plain).unwrap().warnings();
    assert!(warnings.iter().any(|w| w.starts_with("storage.endpoint")), "{warnings:?}");
}

#[test]
fn witnesses_are_checked_and_tokens_wait_for_them_only_with_a_quorum() {
    let sample = samples().into_iter().find(|s| s.contains("[[witness]]")).unwrap();
    let config = Config::parse(sample).unwrap();
    assert_eq!(config.release, Release::Witnessed);
    assert_eq!(config.witness_settings().remotes().unwrap().len(), 3);
    let other = |from: &str, to: &str| {
        assert!(sample.contains(from));
        Config::parse(&sample.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, why) in [
        ("quorum = \"two-of-three\"", "quorum = \"none\"", "is not `none`"),
        ("quorum = \"two-of-three\"\n", "", "is not `none`"),
        ("quorum = \"two-of-three\"", "quorum = \"three\"", "no earlier line defines"),
        ("threshold = \"2\"", "threshold = \"4\"", "number from 1 to 3"),
        ("https://witness.north.example/", "witness.north.example", "must be an http(s) URL"),
        ("release = \"witnessed\"", "release = \"never\"", "unknown variant"),
        ("[[realms]]", "[directory]\nwrite = false\n[[realms]]", "writes the directory"),
    ] {
        let error = other(from, to);
        assert!(error.contains(why), "{to}: {error}");
    }
}

fn samples() -> Vec<&'static str> {
    let parts: Vec<&str> = DOCUMENT.split("```toml\n").skip(1).collect();
    parts.iter().map(|part| part.split_once("\n```").unwrap().0).collect()
}

#[test]
fn every_sample_of_the_reference_is_accepted() {
    let samples = samples();
    assert!(samples.len() >= 3);
    for sample in &samples {
        let config = Config::parse(sample).unwrap_or_else(|e| panic!("{e}\n{sample}"));
        assert_eq!(config.warnings(), Vec::<String>::new(), "{sample}");
        assert!(!config.development);
    }
    let [smallest, realms, tls, ..] = samples.as_slice() else { panic!() };
    let smallest = Config::parse(smallest).unwrap();
    assert_eq!((smallest.listen, smallest.admin_listen), (default_listen(), default_admin()));
    let realms = Config::parse(realms).unwrap().realms;
    assert_eq!(realms[0].schedule.rotate_every_s, 1_800);
    assert_eq!(realms[1].schedule.rotation, chancery_policy::Rotation::Manual);
    let tls = Config::parse(tls).unwrap();
    assert_eq!((tls.logging.format, tls.trusted_proxies.len()), (LogFormat::Json, 3));
    assert_eq!(tls.listen.ip(), Ipv6Addr::UNSPECIFIED);
}

/// The keys that may stand in the table of which `broken` has an unknown one.
fn known_keys(broken: &str) -> Vec<String> {
    let error = refusal(broken);
    let (_, list) = error.split_once("expected ").unwrap_or_else(|| panic!("no hint: {error}"));
    let names: Vec<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!names.is_empty(), "{error}");
    names
}

#[test]
fn unknown_keys_are_refused_with_a_hint_and_every_known_one_is_documented() {
    let tables = [
        file().replacen("base_url", "lisen = 1\nbase_url", 1),
        format!("{}[tls]\nlisen = 1\n", file()),
        format!("{}[logging]\nlisen = 1\n", file()),
        format!("{}[directory]\nlisen = 1\n", file()),
        format!("{}[[witness]]\nlisen = 1\n", file()),
        format!("{}[[witness_group]]\nlisen = 1\n", file()),
        format!("{}[audit]\nlisen = 1\n", file()),
        format!("{}[[audit.export]]\nlisen = 1\n", file()),
        file().replacen("rsa_bits", "lisen = 1\nrsa_bits", 1),
        file().replacen("skew_s", "lisen = 1\nskew_s", 1),
        file().replacen("replay_capacity", "lisen = 1\nreplay_capacity", 1),
        file().replacen("max_audiences", "lisen = 1\nmax_audiences", 1),
        format!("{}[kubernetes]\nlisen = 1\n", file()),
        format!("{}[[kubernetes.import]]\nlisen = 1\n", file()),
        format!("{}[realms.kubernetes]\nlisen = 1\n", file()),
        format!("{}[[realms.kubernetes.imported]]\nlisen = 1\n", file()),
    ];
    for table in tables {
        let error = refusal(&table);
        assert!(error.contains("unknown field `lisen`") && error.contains("line "), "{error}");
        for name in known_keys(&table) {
            assert!(DOCUMENT.contains(&format!("\n| `{name}` |")), "`{name}` is not documented");
        }
    }
}

#[test]
fn documented_defaults_are_the_defaults() {
    let config = Config::parse(samples()[0]).unwrap();
    let schedule = Schedule::default();
    let client = &config.realms[0].clients[0];
    let grant = &client.grants[0];
    let defaults = [
        ("listen", config.listen.to_string()),
        ("admin_listen", config.admin_listen.to_string()),
        ("data", default_data().display().to_string()),
        ("unverified_per_s", config.unverified_per_s.to_string()),
        ("wal_segment_mib", config.wal_segment_mib.to_string()),
        ("rsa_bits", config.realms[0].rsa_bits.to_string()),
        ("rotate_every_s", schedule.rotate_every_s.to_string()),
        ("publish_lead_s", schedule.publish_lead_s.to_string()),
        ("max_lifetime_s", schedule.max_lifetime_s.to_string()),
        ("skew_s", schedule.skew_s.to_string()),
        ("manual_window_s", schedule.manual_window_s.to_string()),
        ("replay_capacity", client.replay_capacity.to_string()),
        ("accept_eddsa", client.accept_eddsa.to_string()),
        ("require_cnf", grant.require_cnf.to_string()),
        ("max_audiences", grant.max_audiences.to_string()),
    ];
    for (name, default) in defaults {
        assert!(DOCUMENT.contains(&format!("| `{name}` | `{default}` |")), "`{name}`: {default}");
    }
    assert_eq!((schedule.rotation, config.logging.format), Default::default());
    assert!(client.max_tokens_per_s.is_none() && grant.max_lifetime_s.is_none());
    assert!(grant.subjects.is_empty() && grant.algorithms.is_none());
}

#[test]
fn every_bound_is_kept() {
    Config::parse(&file()).unwrap();
    let cases: &[(&str, &str, &str)] = &[
        ("https://issuer.example\"", "issuer.example\"", "base_url"),
        ("https://issuer.example\"", "https://\"", "base_url"),
        ("https://issuer.example\"", "https://issuer.example/\"", "base_url"),
        ("https://issuer.example\"", "https://issuer.example?a=b\"", "base_url"),
        ("https://issuer.example\"", "https://issuer.example/a b\"", "base_url"),
        ("wal_segment_mib = 64", "wal_segment_mib = 0", "1 to 1024"),
        ("wal_segment_mib = 64", "wal_segment_mib = 1025", "1 to 1024"),
        ("unverified_per_s = 20", "unverified_per_s = 0", "at least 1"),
        ("name = \"main\"", "name = \"Main\"", "lower-case"),
        ("name = \"main\"", "name = \"log\"", "reserved"),
        ("/main\"", "/main/\"", "final slash"),
        ("/main\"", "/main?x\"", "without query"),
        ("[\"ES256\", \"RS256\"]", "[]", "no algorithm"),
        ("[\"ES256\", \"RS256\"]", "[\"ES256\", \"ES256\"]", "twice"),
        ("[\"ES256\", \"RS256\"]", "[\"HS256\"]", "HS256"),
        ("rsa_bits = 2048", "rsa_bits = 1024", "4096"),
        ("rotate_every_s = 3600", "rotate_every_s = 0", "rotate_every_s"),
        ("rotate_every_s = 3600", "rotate_every_s = 34560001", "34560000"),
        ("rotate_every_s = 3600", "rotate_every_s = 60", "more than 64"),
        ("publish_lead_s = 300", "publish_lead_s = 0", "publish_lead_s"),
        ("max_lifetime_s = 3600", "max_lifetime_s = -1", "max_lifetime_s"),
        ("skew_s = 30", "skew_s = 34560001", "skew_s"),
        ("id = \"orders\"", "id = \"or ders\"", "printable ASCII"),
        ("crv = \"Ed25519\"", "crv = \"X25519\"", "key"),
        ("replay_capacity = 100000", "replay_capacity = 0", "1 to 4000000"),
        ("replay_capacity = 100000", "max_tokens_per_s = 0", "max_tokens_per_s"),
        ("[\"https://stock.example\"]", "[]", "audiences"),
        ("max_audiences = 1", "max_audiences = 0", "max_audiences"),
        ("max_audiences = 1", "max_audiences = 256", "max_audiences"),
        ("max_audiences = 1", "subjects = [\"a*b\"]", "one `*`"),
        ("max_audiences = 1", "scopes = [\"a b\"]", "scope"),
        ("max_audiences = 1", "claims = [\"sub\"]", "signer alone"),
        ("max_audiences = 1", "max_lifetime_s = 3601", "realm's 3600"),
        ("max_audiences = 1", "algorithms = [\"ES384\"]", "not one of the realm's"),
    ];
    for (from, to, expected) in cases {
        let error = with(from, to);
        assert!(error.contains(expected), "{to}: {error}");
    }
    let two = file().replace("[[realms]]\nname = \"main\"", "[[realms]]\nname = \"other\"");
    let realm = |text: &str| text[text.find("[[realms]]").unwrap()..].to_owned();
    assert!(refusal(&(file() + &realm(&two))).contains("issuer `https://issuer.example/main`"));
    assert!(refusal(&(file() + &realm(&file()))).contains("twice"));
    assert!(refusal("base_url = \"https://a.example\"\nrealms = []").contains("1 to 256"));
    for proxies in ["\"10.0.0.1/8\"", "\"10.0.0.0/33\"", "\"x\"", "7"] {
        let text = format!("trusted_proxies = [{proxies}]\n{}", file());
        assert!(refusal(&text).contains("trusted_proxies"), "{proxies}");
    }
}

/// The sample for Kubernetes with one line replaced.
fn cluster(from: &str, to: &str) -> String {
    let samples = samples();
    let sample = samples.iter().find(|s| s.contains("[kubernetes]")).unwrap();
    assert!(sample.contains(from), "{from}");
    sample.replacen(from, to, 1)
}

#[test]
fn what_would_end_an_api_server_is_found_in_the_file() {
    let cases = [
        ("realm = \"cluster\"", "realm = \"other\"", "not one of the realms"),
        ("max_lifetime_s = 86400", "max_lifetime_s = 599", "kube-apiserver would exit"),
        ("allowed_uids = [0]", "refresh_hint_s = 151", "half of the realm's publish_lead_s, 150"),
        ("allowed_uids = [0]", "refresh_hint_s = 0", "refresh_hint_s `0`"),
        ("allowed_uids = [0]", "allowed_uids = []", "nobody"),
        ("allowed_uids = [0]", "answer_within_ms = 0", "answer_within_ms"),
        ("allowed_uids = [0]", "answer_within_ms = 15001", "15000"),
        ("socket_mode = 0o660", "socket_mode = 0o60", "`0o60`"),
        ("socket_mode = 0o660", "socket_mode = 0o1600", "`0o1600`"),
        ("[\"ES256\"]", "[\"Ed25519\"]", "RS256, ES256 and ES384"),
        ("\"default:web\"", "\"default:w*\"", "alone in the place"),
        ("until = 1830297600", "until = -1", "until"),
    ];
    for (from, to, expected) in cases {
        let error = refusal(&cluster(from, to));
        assert!(error.contains(expected), "{to}: {error}");
    }
    let other = file() + "[kubernetes]\nrealm = \"main\"\n";
    assert!(refusal(&other).contains("[realms.kubernetes]"));
    let settings = |from, to| Config::parse(&cluster(from, to)).unwrap().kubernetes.unwrap();
    let same = ("publish_lead_s = 300", "publish_lead_s = 300");
    assert_eq!(settings(same.0, same.1).refresh_hint(300), 30);
    assert_eq!(settings(same.0, same.1).refresh_hint(8), 2);
    assert_eq!(settings(same.0, same.1).refresh_hint(2), 1);
    let stated = settings("allowed_uids = [0]", "refresh_hint_s = 100");
    assert_eq!((stated.refresh_hint(300), stated.refresh_hint(20)), (100, 10));
    assert_eq!(stated.answer_within_ms, 2_000);
    assert_eq!(stated.peers().last(), Some(&0));
    assert_eq!((stated.socket_mode, Settings::of("x").socket_mode), (0o660, 0o600));
}

#[test]
fn imported_keys_come_from_files_into_the_policy() {
    let folder = std::env::temp_dir().join(format!("chancery-imports-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (path, key_file) = (folder.join("chancery.toml"), folder.join("sa.pub"));
    let import = |lines: &str| {
        let name = key_file.display();
        format!(
            "[[kubernetes.import]]\nkey_file = \"{name}\"\nuntil = 1830297600\n{lines}\n[[realms]]"
        )
    };
    std::fs::write(&path, cluster("[[realms]]", &import("in_discovery = true"))).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("sa.pub"), "no such file yet");
    let pem = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n\
        6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n\
        -----END PUBLIC KEY-----\n";
    std::fs::write(&key_file, pem).unwrap();
    let config = Config::load(&path).unwrap();
    let imported = &config.policy(1).realms[0].kubernetes.clone().unwrap().imported;
    assert_eq!(imported.len(), 2, "the one in the file, and the one of the sample");
    assert_eq!(imported[1].kid, "K9G7DESol8MKeqCZHN442AYv5EHeUNoPRoJTRPYC6Cc");
    assert!(imported[1].in_discovery && imported[1].until == 1_830_297_600);
    // What the policy says of imported keys holds for those of files too.
    std::fs::write(&path, cluster("[[realms]]", &import("kid = \"2026-1\""))).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("twice"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_allowed_but_doubtful_is_said() {
    let text = file()
        .replacen("base_url", "listen = \"0.0.0.0:80\"\nadmin_listen = \"0.0.0.0:81\"\nbase_url", 1)
        .replacen("https://issuer.example/main", "http://else.example", 1);
    let without_clients = text[..text.find("[[realms.clients]]").unwrap()].to_owned();
    let warnings = Config::parse(&without_clients).unwrap().warnings();
    for expected in ["has no TLS", "admin_listen", "by other means", "not https", "no clients"] {
        assert!(warnings.iter().any(|w| w.contains(expected)), "{expected}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 5);
}

#[test]
fn the_policy_that_a_file_means_is_one_that_a_signer_accepts() {
    for sample in samples() {
        let document = Config::parse(sample).unwrap().policy(3);
        assert_eq!(document.log_prefix, "issuer.example/log");
        assert_eq!(PolicyDocument::parse(&document.to_json().unwrap()), Ok(document));
    }
}

#[test]
fn files_that_cannot_be_read_and_files_that_are_wrong_are_told_apart() {
    let folder = std::env::temp_dir().join(format!("chancery-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("chancery.toml");
    let missing = Config::load(&path).unwrap_err();
    assert!(
        matches!(missing, ConfigError::Unreadable { .. })
            && missing.to_string().contains("chancery.toml")
    );
    std::fs::write(&path, "base_url = ").unwrap();
    let wrong = Config::load(&path).unwrap_err();
    assert!(
        matches!(wrong, ConfigError::Shape { .. }) && wrong.to_string().contains("chancery.toml")
    );
    std::fs::write(&path, b"\xff").unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, file()).unwrap();
    assert_eq!(Config::load(&path).unwrap().realms.len(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn development_mode_keeps_its_clients_key() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("chancery-dev-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("demo.pem");
    let make = || Config::development(default_listen(), default_admin(), folder.clone(), &file);
    let first = make().unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(first.realms, make().unwrap().realms);
    assert!(first.development && first.warnings().is_empty());
    std::fs::write(&file, "not a key").unwrap();
    assert!(matches!(make(), Err(ConfigError::Demo(text)) if text.contains("demo.pem")));
    std::fs::remove_dir_all(&folder).unwrap();
}

proptest! {
    #[test]
    fn arbitrary_files_are_accepted_or_refused(text in ".{0,300}") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn altered_files_are_accepted_or_refused(at in 0_usize..900, to in any::<char>()) {
        let mut chars: Vec<char> = file().chars().collect();
        let at = at % chars.len();
        chars[at] = to;
        let _ = Config::parse(&chars.into_iter().collect::<String>());
    }
}
