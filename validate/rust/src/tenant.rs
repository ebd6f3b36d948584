//! Microsoft Entra ID: one key set speaks for many tenants, and says so in each key.
//!
//! Discovery and keys hold issuers with `{tenantid}`, which stands for the token's `tid`. A key whose
//! `issuer` names one tenant (that of personal accounts has such keys) speaks for that tenant alone.
//! Not to ask was the validation error of Storm-0558: a consumer key's signature was accepted for
//! tokens of enterprises.

/// What stands for the tenant in an issuer of the metadata.
const PLACEHOLDER: &str = "{tenantid}";

/// Issuers of version 1 tokens, and where the version 2 issuers of the same clouds begin. Keys name
/// only the latter, so a version 1 token is held to the version 2 issuer of its own tenant.
const VERSIONS: [(&str, &str); 4] = [
    ("https://sts.windows.net/", "https://login.microsoftonline.com/"),
    ("https://sts.windows.net/", "https://login.microsoftonline.us/"),
    ("https://sts.chinacloudapi.cn/", "https://login.partner.microsoftonline.cn/"),
    ("https://sts.chinacloudapi.cn/", "https://login.chinacloudapi.cn/"),
];

/// Whether an issuer has a place for a tenant.
pub fn is_template(issuer: &str) -> bool {
    issuer.contains(PLACEHOLDER)
}

/// Whether a text is a tenant's id: a UUID in lower case, and nothing that could change a URL.
pub fn is_tenant(text: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let hex = |group: &str| group.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq(GROUPS) && groups.into_iter().all(hex)
}

/// An issuer with the tenant in its place.
pub fn fill(issuer: &str, tenant: &str) -> String {
    issuer.replace(PLACEHOLDER, tenant)
}

/// Whether `iss` is an issuer of this tenant: its id is a whole segment of the URL. Without that, a
/// tenant's own key could say any other tenant in `tid`.
pub fn is_of(iss: &str, tenant: &str) -> bool {
    iss.split('/').any(|segment| segment == tenant)
}

/// Whether a key with this `issuer` may speak for `iss` in `tenant`.
pub fn may_speak(key_issuer: &str, iss: &str, tenant: &str) -> bool {
    let key_issuer = fill(key_issuer, tenant);
    key_issuer == iss
        || VERSIONS.into_iter().any(|(first, second)| {
            iss == format!("{first}{tenant}/") && key_issuer == format!("{second}{tenant}/v2.0")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "f8cdef31-a31e-4b4a-93e4-5f571e91255a";
    const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
    const TEMPLATE: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";

    #[test]
    fn tenants_are_plain_uuids() {
        assert!(is_tenant(TENANT));
        for text in [
            "",
            "common",
            "f8cdef31a31e4b4a93e45f571e91255a",
            "F8CDEF31-a31e-4b4a-93e4-5f571e91255a",
            "f8cdef31-a31e-4b4a-93e4-5f571e91255a/",
            "../../../-a31e-4b4a-93e4-5f571e91255a",
            "f8cdef31-a31e-4b4a-93e4-5f571e91255a-",
        ] {
            assert!(!is_tenant(text), "{text}");
        }
    }

    #[test]
    fn an_issuer_names_its_tenant() {
        assert!(is_of(&format!("https://sts.windows.net/{TENANT}/"), TENANT));
        assert!(is_of(&format!("https://login.microsoftonline.com/{TENANT}/v2.0"), TENANT));
        assert!(!is_of(&format!("https://login.microsoftonline.com/{CONSUMERS}/v2.0"), TENANT));
        assert!(!is_of(&format!("https://login.microsoftonline.com/x{TENANT}/v2.0"), TENANT));
    }

    #[test]
    fn a_key_speaks_for_its_tenants_only() {
        let second = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        let first = format!("https://sts.windows.net/{TENANT}/");
        assert!(may_speak(TEMPLATE, &second, TENANT));
        assert!(may_speak(TEMPLATE, &first, TENANT));
        assert!(may_speak(&second, &second, TENANT));
        let consumers = format!("https://login.microsoftonline.com/{CONSUMERS}/v2.0");
        assert!(may_speak(&consumers, &consumers, CONSUMERS));
        // Storm-0558: a key of the consumers' tenant under an enterprise's token.
        assert!(!may_speak(&consumers, &second, TENANT));
        assert!(!may_speak(&consumers, &first, TENANT));
        // A token that says one tenant in `iss` and another in `tid`.
        assert!(!may_speak(TEMPLATE, &second, CONSUMERS));
        assert!(!may_speak(TEMPLATE, &first, CONSUMERS));
        // Another cloud's issuer.
        let china = format!("https://sts.chinacloudapi.cn/{TENANT}/");
        assert!(!may_speak(TEMPLATE, &china, TENANT));
        assert!(!may_speak(TEMPLATE, "https://evil.example/", TENANT));
    }
}
