use std::io::{Read, Write};
use std::net::TcpListener;

use object_store::{Error, PutMode, PutOptions, UpdateVersion};

use super::*;

#[test]
fn every_kind_of_url_is_read() {
    let prefix = |url: &str| match Location::parse(url, None).unwrap().0 {
        Place::Bucket { provider, prefix, .. } => (Some(provider), prefix.to_string()),
        Place::Folder(folder) => (None, folder.display().to_string()),
    };
    for (url, provider, path) in [
        ("file:/var/lib/logs", None, "/var/lib/logs"),
        ("file:///var/lib/logs%20here", None, "/var/lib/logs here"),
        ("s3://bucket/a/b", Some(Provider::S3), "a/b"),
        ("s3://bucket", Some(Provider::S3), ""),
        ("s3://bucket/a/", Some(Provider::S3), "a"),
        ("az://container/a", Some(Provider::Azure), "a"),
        ("abfs://container@account.dfs.core.windows.net/a", Some(Provider::Azure), "a"),
        ("abfss://container/a", Some(Provider::Azure), "a"),
        ("gs://bucket/a", Some(Provider::Gcs), "a"),
    ] {
        assert_eq!(prefix(url), (provider, path.to_owned()), "{url}");
    }
}

#[test]
fn urls_that_mean_something_else_are_refused_without_repeating_secrets() {
    for url in [
        "",
        "bucket",
        "s3:bucket",
        "s3://",
        "s3:///a",
        "http://bucket/a",
        "https://bucket/a",
        "memory:/",
        "file:relative",
        "file://elsewhere/a",
        "s3://bucket?versions",
        "s3://bucket#a",
        "gs://bucket:80/a",
        "s3://key@bucket/a",
    ] {
        let error = Location::parse(url, None).unwrap_err();
        assert!(error.to_string().contains(url), "{url}: {error}");
    }
    let error = Location::parse("s3://key:hunter2@bucket/a", None).unwrap_err().to_string();
    assert!(error.contains("environment") && !error.contains("hunter2"), "{error}");
    for endpoint in ["", "store.example", "ftp://store.example", "http://store.example/?a=b"] {
        let error = Location::parse("s3://bucket", Some(endpoint)).unwrap_err();
        assert!(error.to_string().contains(&format!("`{endpoint}`")), "{error}");
    }
    let secret = Location::parse("s3://bucket", Some("http://a:hunter2@store.example"));
    assert!(!secret.unwrap_err().to_string().contains("hunter2"));
    assert!(Location::parse("file:/a", Some("http://127.0.0.1:1")).is_err());
}

#[test]
fn what_crosses_a_network_in_the_clear_is_known() {
    for (endpoint, clear) in [
        ("http://127.0.0.1:9000", false),
        ("http://[::1]:9000", false),
        ("http://localhost:9000", false),
        ("https://store.example", false),
        ("http://store.example", true),
        ("http://10.0.0.1", true),
    ] {
        let location = Location::parse("s3://bucket", Some(endpoint)).unwrap();
        assert_eq!(location.is_in_the_clear(), clear, "{endpoint}");
    }
}

/// Answers each request with one of these texts, and hands the requests out.
fn listener(answers: &'static [&'static str]) -> (Url, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = std::thread::spawn(move || {
        let answer = |answer: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4_096];
            while !request.ends_with(b"body") {
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0, "the request ends early");
                request.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap().to_ascii_lowercase()
        };
        answers.iter().map(answer).collect()
    });
    (url, serving)
}

/// No emulator keeps this provider's conditions: at least they are sent as its reference says, and
/// its refusals are understood.
#[tokio::test]
async fn google_is_asked_by_generation() {
    const CREATED: &str = "HTTP/1.1 200 OK\r\netag: \"a\"\r\nx-goog-generation: 7\r\n\
        content-length: 0\r\nconnection: close\r\n\r\n";
    const REFUSED: &str =
        "HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (endpoint, serving) = listener(&[CREATED, REFUSED, REFUSED]);
    let url = "gs://bucket/prefix".parse().unwrap();
    // With a token of its own: without one the client would ask the machine for its identity.
    let store = gcs_builder(&url, Some(&endpoint)).with_bearer_token("test").build().unwrap();
    let store = super::super::Store::new(Arc::new(PrefixStore::new(store, "prefix")));
    let key = path::Path::from("vkey");
    let put = |mode| store.objects.put_opts(&key, "body".into(), PutOptions::from(mode));
    let created = put(PutMode::Create).await.unwrap();
    assert_eq!(created.version.as_deref(), Some("7"));
    assert!(matches!(put(PutMode::Create).await, Err(Error::AlreadyExists { .. })));
    let version = UpdateVersion { e_tag: created.e_tag, version: created.version };
    let refused = put(PutMode::Update(version)).await;
    assert!(matches!(refused, Err(Error::Precondition { .. })), "{refused:?}");
    let requests = serving.join().unwrap();
    for (request, generation) in requests.iter().zip(["0", "0", "7"]) {
        assert!(request.starts_with("put /bucket/prefix%2fvkey "), "{request}");
        let condition = format!("x-goog-if-generation-match: {generation}\r\n");
        assert!(request.contains(&condition), "{request}");
    }
}
