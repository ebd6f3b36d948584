//! Paths that a proxy and an application may read in different ways.

use std::collections::BTreeSet;

/// The guarded part of the site, in small letters.
const GUARDED: &str = "admin";

/// What clients send to get below `/admin/` past nginx.
pub const ATTEMPTS: [&str; 32] = [
    "/admin/users",
    "/admin/users/..%2f..%2fx",
    "/admin/%2e%2e/x",
    "/x/..;/admin/users",
    "/Admin/users",
    "/admin%5cusers",
    "/admin",
    "/admin?x=1",
    "/ADMIN",
    "//admin/users",
    "/./admin/users",
    "/.//admin///users",
    "/%61dmin/users",
    "/%61%64%6d%69%6e/users",
    "/%2561dmin/users",
    "/%252561dmin/users",
    "/admin%2fusers",
    "/admin%252fusers",
    "/admin%255cusers",
    "/x/%2e%2e/admin/users",
    "/x/%2e%2e%2fadmin/users",
    "/x/%252e%252e/admin/users",
    "/x/..%5cadmin/users",
    "/x\\..\\admin/users",
    "/admin\\users",
    "/admin;x=1/users",
    "/admin%3bx/users",
    "/;x/admin/users",
    "/x/..%3b/admin/users",
    "/x/.%2e;a=b/aDmIn;c/users",
    "/admin%20/..;/admin/users",
    "/admin/..%5cx",
];

/// Whether an application that reads as generously as any could take this request line's path for
/// one below `/admin/`, in any order of decoding, dropping parameters, resolving dots.
pub fn may_be_guarded(target: &str) -> bool {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = path
        .split_once("://")
        .map_or(path, |(_, rest)| rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"));
    let mut known = BTreeSet::from([path.to_lowercase()]);
    let mut new: Vec<String> = known.iter().cloned().collect();
    while let Some(reading) = new.pop() {
        for next in [
            decoded(&reading),
            reading.replace('\\', "/"),
            without_parameters(&reading),
            without_dots(&reading),
        ] {
            if known.insert(next.clone()) {
                new.push(next);
            }
        }
    }
    known.iter().any(|reading| reading.split('/').find(|part| !part.is_empty()) == Some(GUARDED))
}

/// One layer of `%XX`, in small letters. What is not ASCII stays encoded.
fn decoded(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                out.push(char::from(byte.to_ascii_lowercase()));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn without_parameters(path: &str) -> String {
    let parts: Vec<&str> =
        path.split('/').map(|part| part.split(';').next().unwrap_or_default()).collect();
    parts.join("/")
}

fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    format!("/{}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_may_read_generously() {
        for path in ATTEMPTS {
            assert!(may_be_guarded(path), "{path}");
        }
        for path in ["http://host/admin/x?y", "http://admin/Admin", "/x/..;/%2561dmin"] {
            assert!(may_be_guarded(path), "{path}");
        }
        for path in ["/", "/x", "/orders/admin", "/admins/x", "/x?/admin/", "http://admin/x", "/%"]
        {
            assert!(!may_be_guarded(path), "{path}");
        }
    }
}
