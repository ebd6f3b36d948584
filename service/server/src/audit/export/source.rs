//! Records behind a cursor: from memory while they are in no segment, from the store after that.

use std::collections::BTreeMap;
use std::sync::Arc;

use chancery_audit::export::Addressed;
use chancery_audit::keys::Identity;
use chancery_audit::segment::{self, Segment};
use chancery_audit::{Opener, SealedSection, SegmentName, hour_of, scan};
use chancery_token::b64;

use super::cursor::At;
use crate::audit::{Pending, lock};
use crate::service::Service;
use crate::store::{Store, StoreError};

/// Records of one delivery: some 200 kB of JSON.
const BATCH: usize = 256;

/// What comes next of a log.
#[derive(Debug)]
pub struct Next {
    /// Records, in order; none when there are none, or none can be read.
    pub records: Vec<Addressed>,
    /// Where the cursor is when they are delivered.
    pub at: At,
    /// Records that were passed over.
    pub unreadable: u64,
}

/// Knows which segments there are, and keeps the one that is being read.
#[derive(Debug, Default)]
pub struct Source {
    /// By log and number; listed once, and again for what is younger.
    segments: Option<BTreeMap<([u8; 16], u64), SegmentName>>,
    open: Option<(SegmentName, Open)>,
}

/// A segment's records, or nothing where it does not open.
#[derive(Debug)]
struct Open {
    first: u64,
    end: u64,
    records: Option<Arc<Vec<chancery_audit::Record>>>,
}

impl Source {
    /// Every log that has records, and where they end; `None` where only its segments can say.
    pub async fn ends(
        &mut self,
        service: &Service,
        from_hour: u64,
    ) -> Result<BTreeMap<[u8; 16], Option<u64>>, String> {
        if self.segments.is_none() {
            self.list(&service.store, from_hour).await?;
        }
        let mut ends: BTreeMap<[u8; 16], Option<u64>> = BTreeMap::new();
        for (log, _) in self.segments.iter().flatten().map(|(key, _)| key) {
            ends.insert(*log, None);
        }
        let state = lock(&service.audit.state);
        ends.extend(state.next.iter().map(|(log, next)| (*log, Some(*next))));
        Ok(ends)
    }

    /// Some records from a cursor on.
    pub async fn next(
        &mut self,
        service: &Service,
        log: [u8; 16],
        from: At,
    ) -> Result<Next, String> {
        if let Some(sections) = waiting(service, &log, from.next) {
            let identities = service.audit.identities.clone();
            let open = move || of_sections(&sections, &identities, log, from);
            return tokio::task::spawn_blocking(open).await.map_err(|e| e.to_string())?;
        }
        // They may have become a segment a moment ago: then it is younger than what was listed.
        let found = match self.find(service, &log, from).await? {
            Some(found) => Some(found),
            None => {
                self.list(&service.store, from.hour).await?;
                self.find(service, &log, from).await?
            }
        };
        let Some(name) = found else {
            return Ok(Next { records: Vec::new(), at: from, unreadable: 0 });
        };
        let Some((_, open)) = &self.open else { return Err("no segment is open".into()) };
        Ok(of_segment(open, &name, log, from))
    }

    /// The first segment that ends behind the cursor; it is open then.
    async fn find(
        &mut self,
        service: &Service,
        log: &[u8; 16],
        from: At,
    ) -> Result<Option<SegmentName>, String> {
        let segments = self.segments.iter().flatten();
        let later: Vec<SegmentName> = segments
            .filter(|((of, number), _)| of == log && *number >= from.segment)
            .map(|(_, name)| name.clone())
            .collect();
        for name in later {
            if self.open.as_ref().is_none_or(|(known, _)| *known != name) {
                match open(service, &name).await? {
                    Some(opened) => self.open = Some((name.clone(), opened)),
                    // Deleted since it was listed.
                    None => {
                        self.segments.as_mut().map(|s| s.remove(&(*log, name.number)));
                        continue;
                    }
                }
            }
            if self.open.as_ref().is_some_and(|(_, open)| open.end > from.next) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    async fn list(&mut self, store: &Store, from_hour: u64) -> Result<(), String> {
        let names = segments_since(store, from_hour).await.map_err(|e| e.to_string())?;
        let known = self.segments.get_or_insert_default();
        for name in names {
            if let Ok(log) = b64::decode_array::<16>(&name.log) {
                known.insert((log, name.number), name);
            }
        }
        Ok(())
    }
}

/// The names of all segments from an hour on.
pub async fn segments_since(store: &Store, hour: u64) -> Result<Vec<SegmentName>, StoreError> {
    let mut names = Vec::new();
    // A date sorts as its text does.
    let probe = SegmentName { hour, log: "x".repeat(22), number: 0, is_sealed: false };
    let folder = probe.folder();
    let first_day = folder.split('/').next().unwrap_or_default();
    for day in store.folders("audit").await? {
        if !day.starts_with("date=") || day.as_str() < first_day {
            continue;
        }
        for hour in store.folders(&format!("audit/{day}")).await? {
            let folder = format!("audit/{day}/{hour}");
            if folder < format!("audit/{}", probe.folder()) {
                continue;
            }
            for file in store.names(&folder).await? {
                names.extend(SegmentName::parse(&format!("{folder}/{file}")));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The names of all segments before an hour.
pub async fn segments_until(store: &Store, hour: u64) -> Result<Vec<SegmentName>, StoreError> {
    let mut names = Vec::new();
    let probe = SegmentName { hour, log: "x".repeat(22), number: 0, is_sealed: false };
    let end = format!("audit/{}", probe.folder());
    for day in store.folders("audit").await? {
        // A date sorts as its text does, and a day is before its hours.
        if !day.starts_with("date=") || format!("audit/{day}") > end {
            continue;
        }
        for hour in store.folders(&format!("audit/{day}")).await? {
            let folder = format!("audit/{day}/{hour}");
            if folder < end {
                for file in store.names(&folder).await? {
                    names.extend(SegmentName::parse(&format!("{folder}/{file}")));
                }
            }
        }
    }
    Ok(names)
}

/// Sections from the one on that holds a record, if that one waits for its segment.
fn waiting(service: &Service, log: &[u8; 16], next: u64) -> Option<Vec<Pending>> {
    let state = lock(&service.audit.state);
    let mut behind = state.pending.iter().filter(|p| p.log == *log && p.end() > next).peekable();
    behind.peek().filter(|first| first.first <= next)?;
    let mut count = 0;
    let mut sections = Vec::new();
    for pending in behind {
        sections.push(pending.clone());
        count += pending.count;
        if usize::try_from(count).is_ok_and(|count| count >= BATCH) {
            break;
        }
    }
    Some(sections)
}

fn of_sections(
    sections: &[Pending],
    identities: &[Identity],
    log: [u8; 16],
    from: At,
) -> Result<Next, String> {
    let mut next = Next { records: Vec::new(), at: from, unreadable: 0 };
    let mut opener = Opener::new(identities);
    for pending in sections {
        if pending.opens {
            let sealed = SealedSection::read(&pending.sealed).map_err(|e| e.to_string())?;
            let section = sealed.open(&mut opener).map_err(|e| e.to_string())?;
            take(&mut next, log, pending.first, &section.records);
        } else {
            pass(&mut next, pending.end());
        }
        next.at.hour = pending.hour;
    }
    Ok(next)
}

fn of_segment(open: &Open, name: &SegmentName, log: [u8; 16], from: At) -> Next {
    let mut next = Next { records: Vec::new(), at: from, unreadable: 0 };
    // What lies before it was deleted before it was exported.
    pass(&mut next, open.first);
    match &open.records {
        Some(records) => take(&mut next, log, open.first, records),
        None => pass(&mut next, open.end),
    }
    next.at.segment = name.number;
    next.at.hour = name.hour;
    if next.at.next >= open.end {
        next.at.segment = name.number.saturating_add(1);
    }
    next
}

/// Takes what lies behind the cursor, as much as one delivery holds.
fn take(next: &mut Next, log: [u8; 16], first: u64, records: &[chancery_audit::Record]) {
    let room = BATCH.saturating_sub(next.records.len());
    let from = next.at.next;
    let behind = (first..).zip(records).filter(|(number, _)| *number >= from).take(room);
    for (number, record) in behind {
        next.records.push(Addressed { log, number, record: record.clone() });
        next.at.next = number.saturating_add(1);
        next.at.hour = hour_of(record.time_ms);
    }
}

fn pass(next: &mut Next, upto: u64) {
    next.unreadable = next.unreadable.saturating_add(upto.saturating_sub(next.at.next));
    next.at.next = next.at.next.max(upto);
}

/// A segment, opened; `None` when it is gone.
async fn open(service: &Service, name: &SegmentName) -> Result<Option<Open>, String> {
    let object = name.object();
    let bytes = match service.store.get(&object).await {
        Err(StoreError::Missing(_)) => return Ok(None),
        other => other.map_err(|e| e.to_string())?,
    };
    let (identities, sealed) = (service.audit.identities.clone(), name.is_sealed);
    let read = move || -> Result<Open, chancery_audit::Error> {
        if sealed {
            let sections = segment::unseal(&bytes)?;
            let first = sections.first().map_or(Ok(0), |s| SealedSection::read(s).map(|s| s.first));
            let end = sections.last().map_or(Ok(0), |s| SealedSection::read(s).map(|s| s.end()));
            return Ok(Open { first: first?, end: end?, records: None });
        }
        let segment = Segment::open(segment::Source::Bytes(bytes), &identities)?;
        let (first, end) = (segment.range().first, segment.range().end());
        Ok(Open { first, end, records: Some(Arc::new(scan::all(&segment)?)) })
    };
    let opened = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
    opened.map(Some).map_err(|e| format!("`{object}`: {e}"))
}
