//! What a directory says, and the logs that it names.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use chancery_tlog::{Hash, LogId};
use chancery_validate::directory::Named;
use serde_json::json;

use super::walk::{Agreement, Claim};
use super::{Begin, CheckError, tell, walk};
use crate::cli::fetch::Place;
use crate::cli::say;

/// Where a directory lies, below what its logs lie beside.
const DIRECTORY: &str = "directory";

/// Tells what a directory says.
pub(super) fn tell_directory(agreement: &Agreement, json: bool) -> anyhow::Result<()> {
    let Agreement { checkpoint, story, before, .. } = agreement;
    let directory = &story.directory;
    let closed = directory.logs().filter(|(_, named)| named.closing().is_some()).count();
    let open = directory.logs().count().saturating_sub(closed);
    if json {
        let logs: Vec<_> = directory.logs().map(|(id, named)| describe(id, named)).collect();
        let document = json!({
            "ok": true,
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.to_string(),
            "logs": logs,
            "checked_before": before,
        });
        say(&document.to_string())?;
        return Ok(());
    }
    let earlier = super::earlier(*before);
    say(&format!(
        "{}: {} entries agree with the signed checkpoint (a directory of {open} open and {closed} closed \
         logs){earlier}",
        checkpoint.origin, checkpoint.size
    ))?;
    Ok(())
}

fn describe(id: LogId, named: &Named) -> serde_json::Value {
    json!({
        "log": id.to_string(),
        "origin": named.key().name(),
        "size": named.latest().map(|(_, latest)| latest.size),
        "closed": named.closing().is_some(),
        "successor": named.closing().and_then(|(_, closing)| closing.successor)
            .map(|log| LogId::from_bytes(log).to_string()),
    })
}

/// Walks every log that a directory names: each tree that the directory holds of it must be a beginning
/// of it, its first entry the named one, and a closed one must have ended where the directory says.
pub(super) fn walk_all(
    directory: &str,
    agreement: &Agreement,
    json: bool,
    interrupted: &AtomicBool,
) -> Result<(), CheckError> {
    let story = &agreement.story;
    let no_logs = || anyhow::anyhow!("`{directory}` is no directory; --logs is for one");
    let heads = story.heads.as_ref().filter(|_| story.directory.size() > 0);
    let heads = heads.ok_or_else(no_logs).map_err(CheckError::Unknown)?;
    let base = beside(directory).map_err(CheckError::Unknown)?;
    for (id, named) in story.directory.logs() {
        let first = Claim {
            size: 1,
            root: Hash(named.genesis().genesis_leaf),
            by: "by its genesis in the directory",
        };
        let rest = heads.get(&id).into_iter().flatten();
        let rest =
            rest.map(|(size, root)| Claim { size: *size, root: *root, by: "in the directory" });
        let claims = std::iter::once(first).chain(rest).collect();
        let place = Place::parse(&format!("{base}/{id}"));
        let may_be_pruned = named.closing().is_some();
        let begin = Begin { named: Some(id), claims, may_be_pruned, ..Begin::default() };
        let of_log = |e: CheckError| match e {
            CheckError::Disagrees { code, why } => {
                CheckError::Disagrees { code, why: format!("log `{id}`: {why}") }
            }
            CheckError::Unknown(why) => CheckError::Unknown(why.context(format!("log `{id}`"))),
            other => other,
        };
        let found = walk(&place, begin, interrupted).map_err(of_log)?;
        let end = named.closing().map(|(_, closing)| closing.size);
        if let Some(end) = end.filter(|end| *end != found.checkpoint.size) {
            return Err(CheckError::disagrees(format!(
                "log `{id}` has {} entries, and the directory closed it at {end}",
                found.checkpoint.size
            )));
        }
        tell(&found, json).map_err(CheckError::Unknown)?;
    }
    Ok(())
}

/// Where the logs lie of which this is the directory.
fn beside(directory: &str) -> anyhow::Result<String> {
    let place = directory.trim_end_matches('/');
    let is_path = Path::new(place).file_name().is_some_and(|name| name == DIRECTORY);
    match place.strip_suffix(DIRECTORY) {
        Some(base) if is_path => Ok(format!("{base}log")),
        _ => anyhow::bail!(
            "name the directory as `.../{DIRECTORY}`: its logs are looked for beside it"
        ),
    }
}
