//! Exports: what was recorded, sent on to other systems by cursors of their own.
//!
//! Never in the issuing path: an exporter reads what is durable already, from memory while it is in no
//! segment and from the store after that, and knows of its receiver alone how far it is. A receiver
//! that is slow or dead is behind; nothing waits for it.
//!
//! Order of durability: records are delivered (a file is synced, an HTTP receiver has answered 2xx), then
//! the cursor is replaced. A crash in between delivers them again: at least once, and every record
//! carries its address, by which a receiver knows it again. A line that a crash cut off is removed from
//! a file before the next one is written.

mod cursor;
mod deliver;
mod settings;
pub(super) mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use settings::{ExportFormat, ExportSettings, MAX_EXPORTS};

use self::cursor::Cursor;
use self::deliver::Receiver;
use self::source::{Next, Source};
use crate::service::Service;

/// How often it is looked for new records.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The wait after a failure, doubled each time up to a minute.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Starts a task for each configured export.
pub fn start(service: &Arc<Service>) {
    for settings in service.config.audit.export.clone() {
        tokio::spawn(export_forever(service.clone(), settings));
    }
}

async fn export_forever(service: Arc<Service>, settings: ExportSettings) {
    let name = settings.name.clone();
    let counts = service.metrics.exports.clone();
    counts.add(&name);
    let mut exporter = Exporter {
        cursor: Cursor::load(&service.paths.exports(), &name),
        source: Source::default(),
        receiver: Receiver::new(settings),
        service,
    };
    let mut wait = RETRY_FIRST;
    let mut failing = false;
    loop {
        let pause = match exporter.round().await {
            Ok(true) => None,
            Ok(false) => Some(LOOK_EVERY),
            Err(why) => {
                counts.failed(&name);
                if !failing {
                    tracing::warn!(export = name, "{why}; it is tried again, nothing else waits");
                }
                failing = true;
                wait = wait.saturating_mul(2).min(RETRY_LONGEST);
                Some(wait)
            }
        };
        if failing && pause.is_none() {
            tracing::warn!(export = name, "the receiver takes records again");
            (failing, wait) = (false, RETRY_FIRST);
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

struct Exporter {
    service: Arc<Service>,
    cursor: Cursor,
    source: Source,
    receiver: Receiver,
}

impl Exporter {
    /// Delivers some records of every log that has more; says whether any had.
    async fn round(&mut self) -> Result<bool, String> {
        let service = self.service.clone();
        let ends = self.source.ends(&service, self.cursor.oldest_hour()).await?;
        self.tell_lag(&ends);
        let mut delivered = false;
        for (log, end) in ends {
            let from = self.cursor.at(&log);
            if end.is_some_and(|end| from.next >= end) {
                continue;
            }
            let next = self.source.next(&service, log, from).await?;
            let Next { records, at, unreadable } = next;
            if unreadable > 0 {
                tracing::error!(
                    records = unreadable,
                    "no key at hand opens them, or they were deleted: they are not exported"
                );
            }
            if !records.is_empty() {
                let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
                self.receiver.deliver(records).await?;
                service.metrics.exports.delivered(self.receiver.name(), count);
                delivered = true;
            }
            if at != from {
                self.cursor.advance(log, at).await?;
            }
        }
        Ok(delivered)
    }

    fn tell_lag(&self, ends: &BTreeMap<[u8; 16], Option<u64>>) {
        let behind = |(log, end): (&[u8; 16], &Option<u64>)| {
            end.map_or(0, |end| end.saturating_sub(self.cursor.at(log).next))
        };
        let lag = ends.iter().map(behind).fold(0, u64::saturating_add);
        self.service.metrics.exports.lag(self.receiver.name(), lag);
    }
}
