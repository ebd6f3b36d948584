//! Finding an issuer's key set and logs (OpenID Connect Discovery 1.0; RFC 8414).

use chancery_token::json;
use chancery_validate::Profile;
use reqwest::Url;
use serde_json::Value;

use crate::error::FetchError;
use crate::fetch::Web;

/// Octets of a metadata document: those in use have 2 to 6 KiB.
const MAX_METADATA_BYTES: usize = 256 * 1024;
/// How Microsoft writes "any tenant" in an issuer, and where that issuer's metadata stands.
const TENANT: (&str, &str) = ("{tenantid}", "common");

/// What an issuer's metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key set.
    pub jwks_uri: Url,
    /// Below which the logs are: `<prefix>/<log id>/checkpoint`. Only Chancery's issuers say so.
    pub logs: Option<String>,
}

/// Reads the metadata of an issuer. `at` is where it stands, if not where the standards say.
pub async fn find(
    web: &Web,
    issuer: &str,
    profile: Profile,
    at: Option<&str>,
) -> Result<Found, FetchError> {
    let places = match at {
        Some(url) => vec![web.url(url)?],
        None => places(web, issuer, profile)?,
    };
    let mut answer = Err(FetchError::Refused { url: issuer.to_owned(), why: "names no place" });
    for url in places {
        answer = web.get(&url, MAX_METADATA_BYTES, None).await.map(|answer| (url, answer));
        // The next place is for issuers that have nothing here, not for those that are down.
        match &answer {
            Err(error) if error.is_absent() => {}
            _ => break,
        }
    }
    let (url, answer) = answer?;
    read(web, &url, &answer.body.unwrap_or_default(), issuer, profile)
}

/// `<issuer>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0, section 4), then
/// `/.well-known/oauth-authorization-server<path>` (RFC 8414, section 3.1).
fn places(web: &Web, issuer: &str, profile: Profile) -> Result<Vec<Url>, FetchError> {
    let text = match profile {
        Profile::Entra => issuer.replace(TENANT.0, TENANT.1),
        Profile::Strict | Profile::Oidc => issuer.to_owned(),
    };
    let base = web.url(&text)?;
    if base.query().is_some() || base.fragment().is_some() {
        let why = "has a query or a fragment, which no issuer has";
        return Err(FetchError::Refused { url: text, why });
    }
    let path = base.path().trim_end_matches('/');
    let mut openid = base.clone();
    openid.set_path(&format!("{path}/.well-known/openid-configuration"));
    let mut oauth = base.clone();
    oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Ok(vec![openid, oauth])
}

fn read(
    web: &Web,
    url: &Url,
    body: &[u8],
    issuer: &str,
    profile: Profile,
) -> Result<Found, FetchError> {
    let content = |why: String| FetchError::Content { url: url.to_string(), why };
    let metadata = json::parse_object(body).map_err(|error| content(error.to_string()))?;
    let member = |name: &str| metadata.get(name).and_then(Value::as_str);
    let named = member("issuer").unwrap_or("");
    if !is_named(issuer, named, profile) {
        let named: String = named.chars().take(200).flat_map(char::escape_debug).collect();
        return Err(content(format!("it names issuer `{named}`, not `{issuer}`")));
    }
    let jwks_uri = member("jwks_uri").ok_or_else(|| content("it has no `jwks_uri`".to_owned()))?;
    let jwks_uri = web.url_named_at(url, jwks_uri)?;
    let logs = member("chancery_signers_uri").and_then(|uri| uri.strip_suffix("/signers"));
    let logs = logs.map(|base| web.url_named_at(url, &format!("{base}/log"))).transpose()?;
    Ok(Found { jwks_uri, logs: logs.map(|url| url.as_str().trim_end_matches('/').to_owned()) })
}

/// The issuer that was asked for must be the one that answers, octet by octet (section 4.3).
/// Microsoft's metadata may say `{tenantid}` where one tenant was asked for.
fn is_named(issuer: &str, named: &str, profile: Profile) -> bool {
    if issuer == named {
        return true;
    }
    let tenant = |(before, after): (&str, &str)| {
        let tenant = issuer.strip_prefix(before)?.strip_suffix(after)?;
        (!tenant.is_empty() && !tenant.contains('/')).then_some(())
    };
    profile == Profile::Entra && named.split_once(TENANT.0).and_then(tenant).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bounds;

    fn web() -> Web {
        Web::new(&Bounds::default(), None, false).unwrap()
    }

    fn look(issuer: &str, profile: Profile) -> Vec<String> {
        places(&web(), issuer, profile).unwrap().iter().map(Url::to_string).collect()
    }

    #[test]
    fn metadata_stands_where_the_standards_say() {
        let both = |openid: &str, oauth: &str| vec![openid.to_owned(), oauth.to_owned()];
        let root = both(
            "https://a.example/.well-known/openid-configuration",
            "https://a.example/.well-known/oauth-authorization-server",
        );
        assert_eq!(look("https://a.example", Profile::Oidc), root);
        assert_eq!(look("https://a.example/", Profile::Oidc), root);
        let below = both(
            "https://a.example:8/x/y/.well-known/openid-configuration",
            "https://a.example:8/.well-known/oauth-authorization-server/x/y",
        );
        assert_eq!(look("https://a.example:8/x/y", Profile::Strict), below);
        assert_eq!(look("https://a.example:8/x/y/", Profile::Strict), below);
        let tenants = look("https://login.example/{tenantid}/v2.0", Profile::Entra);
        assert_eq!(
            tenants.first().unwrap(),
            "https://login.example/common/v2.0/.well-known/openid-configuration"
        );
        for issuer in ["https://a.example/?x=1", "https://a.example/#x", "http://a.example", "a"] {
            assert!(places(&web(), issuer, Profile::Oidc).is_err(), "{issuer}");
        }
    }

    fn found(body: &str, issuer: &str, profile: Profile) -> Result<Found, String> {
        let url = Url::parse("https://a.example/.well-known/x").unwrap();
        read(&web(), &url, body.as_bytes(), issuer, profile).map_err(|error| error.to_string())
    }

    #[test]
    fn metadata_must_be_the_issuers_own() {
        let body = r#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/k","x":[]}"#;
        let read = found(body, "https://a.example", Profile::Oidc).unwrap();
        assert_eq!(read.jwks_uri.as_str(), "https://keys.example/k");
        assert_eq!(read.logs, None);
        for issuer in ["https://a.example/", "https://A.example", "https://b.example"] {
            let error = found(body, issuer, Profile::Entra).unwrap_err();
            assert!(error.contains("it names issuer `https://a.example`"), "{error}");
        }
    }

    #[test]
    fn a_template_stands_for_one_tenant_under_entra_alone() {
        let body =
            r#"{"issuer":"https://l.example/{tenantid}/v2.0","jwks_uri":"https://l.example/k"}"#;
        let tenant = "https://l.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0";
        assert!(found(body, tenant, Profile::Entra).is_ok());
        assert!(found(body, "https://l.example/{tenantid}/v2.0", Profile::Entra).is_ok());
        assert!(found(body, tenant, Profile::Oidc).is_err());
        for other in
            ["https://l.example//v2.0", "https://l.example/a/b/v2.0", "https://x.example/a/v2.0"]
        {
            assert!(found(body, other, Profile::Entra).is_err(), "{other}");
        }
    }

    #[test]
    fn logs_are_beside_the_list_of_signers() {
        let body = |uri: &str| {
            format!(
                r#"{{"issuer":"i","jwks_uri":"https://a.example/k","chancery_signers_uri":"{uri}"}}"#
            )
        };
        let logs = |uri| found(&body(uri), "i", Profile::Strict).map(|found| found.logs);
        assert_eq!(logs("https://a.example/signers"), Ok(Some("https://a.example/log".to_owned())));
        assert_eq!(logs("https://[::1]:8/p/signers"), Ok(Some("https://[::1]:8/p/log".to_owned())));
        assert!(logs("http://[::1]:8/p/signers").is_err(), "of this machine, named by another");
        assert_eq!(logs("https://a.example/other"), Ok(None));
        assert!(logs("http://a.example/signers").is_err(), "not encrypted");
    }

    #[test]
    fn broken_metadata_is_named() {
        for (body, why) in [
            ("", "GET"),
            ("[]", "object"),
            (r#"{"issuer":"i"}"#, "no `jwks_uri`"),
            (r#"{"issuer":"i","jwks_uri":1}"#, "no `jwks_uri`"),
            (r#"{"issuer":"i","issuer":"i","jwks_uri":"https://a.example"}"#, "issuer"),
            (r#"{"issuer":"i","jwks_uri":"http://a.example/k"}"#, "is not encrypted"),
            (r#"{"issuer":"i","jwks_uri":"http://127.0.0.1/k"}"#, "while what names it is"),
            (r#"{"issuer":7,"jwks_uri":"https://a.example/k"}"#, "names issuer ``"),
        ] {
            let error = found(body, "i", Profile::Strict).unwrap_err();
            assert!(error.contains(why) || why == "GET", "{body}: {error}");
        }
    }
}
