//! Where the key sets of issuers come from, where discovery is not to be asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chancery_relying_party::Builder;

/// Largest file that is read: a key set, an anchor or a bundle of certificates.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What was said about one issuer's key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is this file, for good.
    File(PathBuf),
    /// It is there; no metadata is read.
    KeySet(String),
    /// Its metadata is there.
    Metadata(String),
}

impl Source {
    /// Whether the issuer's metadata is read, which says where its logs are.
    fn reads_metadata(&self) -> bool {
        matches!(self, Self::Metadata(_))
    }
}

/// The values of one option, each for an issuer: all of them in the issuers' order, or each behind
/// its issuer, `ISSUER=VALUE`.
struct Given<'a> {
    option: &'static str,
    values: &'a [String],
    source: fn(&str) -> Source,
}

/// The sources of the issuers for which one was named.
///
/// # Errors
/// Too many or too few of them, two for one issuer.
pub fn of<'i>(
    issuers: &'i [String],
    files: &[String],
    key_sets: &[String],
    metadata: &[String],
) -> anyhow::Result<HashMap<&'i str, Source>> {
    let mut sources = HashMap::new();
    for given in [
        Given { option: "--jwks", values: files, source: |v| Source::File(v.into()) },
        Given { option: "--jwks-uri", values: key_sets, source: |v| Source::KeySet(v.into()) },
        Given {
            option: "--metadata-uri",
            values: metadata,
            source: |v| Source::Metadata(v.into()),
        },
    ] {
        given.add(issuers, &mut sources)?;
    }
    Ok(sources)
}

impl Given<'_> {
    fn add<'i>(
        &self,
        issuers: &'i [String],
        sources: &mut HashMap<&'i str, Source>,
    ) -> anyhow::Result<()> {
        let option = self.option;
        let named: Vec<_> = self.values.iter().map(|value| named(issuers, value)).collect();
        let by_name = named.iter().flatten().count();
        if by_name == 0 && !self.values.is_empty() && self.values.len() != issuers.len() {
            let (values, issuers) = (self.values.len(), issuers.len());
            bail!(
                "{option} is there {values} times for {issuers} issuers; give one for each, in \
                   their order, or ISSUER=VALUE"
            );
        }
        if by_name != 0 && by_name != self.values.len() {
            bail!("{option} is either ISSUER=VALUE every time, with issuers of --issuer, or never");
        }
        for ((value, named), in_order) in self.values.iter().zip(named).zip(issuers.iter().cycle())
        {
            let (issuer, value) = named.unwrap_or((in_order, value));
            if sources.insert(issuer, (self.source)(value)).is_some() {
                bail!("{option} names a second key set for issuer `{issuer}`; name one");
            }
        }
        Ok(())
    }
}

/// A value behind the issuer that it is for. Both may hold `=` themselves, so that the longest
/// configured issuer counts.
fn named<'i, 'v>(issuers: &'i [String], value: &'v str) -> Option<(&'i str, &'v str)> {
    let of = |issuer: &'i String| {
        let rest = value.strip_prefix(issuer.as_str())?.strip_prefix('=')?;
        Some((issuer.as_str(), rest))
    };
    issuers.iter().filter_map(of).max_by_key(|(issuer, _)| issuer.len())
}

/// An issuer about whose logs nobody will say where they are: its metadata is not read.
pub fn without_metadata<'i>(
    issuers: &'i [String],
    sources: &HashMap<&'i str, Source>,
) -> Option<&'i str> {
    let unread = |issuer: &&str| sources.get(issuer).is_some_and(|s| !s.reads_metadata());
    issuers.iter().map(String::as_str).find(unread)
}

/// Hands the sources on, with every file read.
///
/// # Errors
/// Files that cannot be read.
pub fn apply(mut builder: Builder, sources: &HashMap<&str, Source>) -> anyhow::Result<Builder> {
    for (issuer, source) in sources {
        builder = match source {
            Source::File(file) => builder.jwks(issuer, &read_file("key set", file)?),
            Source::KeySet(url) => builder.jwks_uri(issuer, url),
            Source::Metadata(url) => builder.metadata_uri(issuer, url),
        };
    }
    Ok(builder)
}

/// A file of bounded size.
///
/// # Errors
/// A file that cannot be read, or is too long.
pub fn read_file(what: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes));
    read.with_context(|| format!("{what} `{}`", file.display()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        bail!("{what} `{}` is longer than {MAX_FILE_BYTES} bytes", file.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn sources_are_found_by_order_or_by_name() {
        let issuers = strings(&["https://a", "https://a?p=x", "https://c"]);
        let by_order = strings(&["https://k/1", "https://k/2?p=x", "https://k/3"]);
        let found = of(&issuers, &[], &by_order, &[]).unwrap();
        assert_eq!(found["https://a?p=x"], Source::KeySet("https://k/2?p=x".into()));
        assert_eq!(found.len(), 3);

        let by_name = strings(&["https://a?p=x=https://k?q=1", "https://a=https://k/a"]);
        let files = strings(&["https://c=/etc/c=d.json"]);
        let found = of(&issuers, &files, &[], &by_name).unwrap();
        assert_eq!(found["https://a?p=x"], Source::Metadata("https://k?q=1".into()));
        assert_eq!(found["https://a"], Source::Metadata("https://k/a".into()));
        assert_eq!(found["https://c"], Source::File("/etc/c=d.json".into()));
        assert_eq!(without_metadata(&issuers, &found), Some("https://c"));
        let found = of(&issuers, &[], &[], &by_name).unwrap();
        assert_eq!(without_metadata(&issuers, &found), None);
    }

    #[test]
    fn what_could_be_meant_for_another_issuer_is_refused() {
        let issuers = strings(&["https://a", "https://b"]);
        let refused = |files: &[&str], key_sets: &[&str], metadata: &[&str], why: &str| {
            let found =
                of(&issuers, &strings(files), &strings(key_sets), &strings(metadata)).unwrap_err();
            assert!(found.to_string().contains(why), "{found}");
        };
        refused(&["one"], &[], &[], "for 2 issuers");
        refused(&[], &["1", "2", "3"], &[], "--jwks-uri is there 3 times for 2 issuers");
        refused(&["https://a=x", "y"], &[], &[], "ISSUER=VALUE every time");
        refused(&["https://a=x", "https://a=y"], &[], &[], "second key set for issuer `https://a`");
        refused(&["https://a=x"], &["https://a=y"], &[], "--jwks-uri names a second");
        refused(&[], &["1", "2"], &["https://b=y"], "--metadata-uri names a second");
    }
}
