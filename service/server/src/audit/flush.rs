//! From sections to segments: built beside the main job, stated to the signer, then forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chancery_audit::segment::{self, MAX_ROWS, Range, Segment, Source};
use chancery_audit::{Opener, Record, SealedSection, SegmentName, scan};
use chancery_signer_api::{AuditSegment, AuditStatement, MAX_AUDIT_STATEMENTS};

use super::{Audit, AuditError, Pending, Place, lock};
use crate::ledger::Audited;
use crate::service::Service;
use crate::store::StoreError;

/// How often it is looked whether a segment is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A stated segment that the ledger does not know after this long is stated again: the signer that
/// was told died, or the disk stalls. Stating twice adds an entry that says the same.
const STATE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Segments that wait to be logged, at most: a full write-ahead log of them and more. The next ones are
/// not built before.
const MAX_FLIGHTS: usize = 64;
/// Statements that wait to be logged lie here, by log and number.
pub(super) const UNSTATED: &str = "audit/unstated";

/// A segment that is stored and not yet known to be logged.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) segment: AuditSegment,
    /// When it was last stated.
    pub(super) stated: Option<Instant>,
}

impl Flight {
    /// The number behind its last record.
    pub(super) fn end(&self) -> u64 {
        self.segment.first.saturating_add(self.segment.records)
    }

    fn object(&self) -> String {
        unstated_object(&self.segment)
    }
}

fn unstated_object(segment: &AuditSegment) -> String {
    format!("{UNSTATED}/{}/{:020}", chancery_token::b64::encode(&*segment.log), segment.number)
}

/// Makes segments as they are due, for ever; a failing store is tried again.
pub async fn flush_forever(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let result = flush(&service).await;
        if let Err(e) = &result
            && !failing
        {
            tracing::error!("audit: {e}; the records stay where they are, trying again");
        }
        failing = result.is_err();
    }
}

/// One round: what is due is stored; what is stored is stated; what is logged is forgotten.
async fn flush(service: &Service) -> Result<(), AuditError> {
    let stored = store_due(service).await;
    state(service);
    forget_logged(service).await;
    stored
}

async fn store_due(service: &Service) -> Result<(), AuditError> {
    let audit = &service.audit;
    let every = Duration::from_secs(service.config.audit.flush_every_s);
    while let Some(run) = audit.due(every, service.config.wal_segment_mib << 20) {
        let Some(first) = run.first() else { return Ok(()) };
        let log = first.log;
        let number = lock(&audit.state).next_segment(&log, service.logs.audited(&log));
        let (range, bytes) = store_run(service, run, number).await?;
        let segment = AuditSegment {
            log: log.into(),
            number: range.name.number,
            first: range.first,
            records: range.records,
            hour: range.name.hour,
            digest: chancery_entry::sha256(&bytes).into(),
        };
        // From here on the segment is found and stated without its sections.
        let statement = minicbor::to_vec(&segment).unwrap_or_default();
        let object = unstated_object(&segment);
        service.store.put_durably(&object, statement.into()).await?;
        tracing::debug!(object = range.name.object(), records = range.records, "audit segment");
        audit.forget(service, Flight { segment, stated: None }).await;
    }
    Ok(())
}

/// Tells the signer, with the next frame, what it has not logged yet.
fn state(service: &Service) {
    let mut state = lock(&service.audit.state);
    let is_due =
        |stated: Option<Instant>| stated.is_none_or(|stated| stated.elapsed() >= STATE_AGAIN_AFTER);
    let mut statements = Vec::new();
    let flights = state.flights.iter_mut().filter(|flight| is_due(flight.stated));
    for flight in flights.take(MAX_AUDIT_STATEMENTS) {
        flight.stated = Some(Instant::now());
        statements.push(AuditStatement::Stored(flight.segment.clone()));
    }
    state.removals.retain(|(removal, _)| !service.logs.is_removal_logged(removal));
    let room = MAX_AUDIT_STATEMENTS.saturating_sub(statements.len());
    let removals = state.removals.iter_mut().filter(|(_, stated)| is_due(*stated));
    for (removal, stated) in removals.take(room) {
        *stated = Some(Instant::now());
        statements.push(AuditStatement::Removed(removal.clone()));
    }
    if !statements.is_empty() {
        service.issuer.state_audit(statements);
    }
}

async fn forget_logged(service: &Service) {
    let mut objects = Vec::new();
    {
        let mut state = lock(&service.audit.state);
        state.flights.retain(|flight| {
            let is_logged = service.logs.audited(&flight.segment.log).records >= flight.end();
            if is_logged {
                objects.push(flight.object());
            }
            !is_logged
        });
    }
    delete(service, objects).await;
}

/// What stays is found at the next start, and is known to be done with then.
async fn delete(service: &Service, objects: Vec<String>) {
    for object in objects {
        if let Err(e) = service.store.delete(&object).await {
            tracing::warn!("{e}; deleted later");
        }
    }
}

/// Builds a segment and stores it, unless it was stored before a crash.
async fn store_run(
    service: &Service,
    run: Vec<Pending>,
    number: u64,
) -> Result<(Range, Bytes), AuditError> {
    let (identities, recipients) =
        (service.audit.identities.clone(), service.audit.recipients.clone());
    let build = move || {
        let (log, first) = run.first().map_or(([0; 16], 0), |p| (p.log, p.first));
        if run.iter().any(|pending| !pending.opens) {
            return Ok(sealed_segment(&run, number));
        }
        let records = open_run(&run, &identities)?;
        segment::write(&log, number, first, &records, &recipients)
    };
    let built = tokio::task::spawn_blocking(build).await;
    let failed = |why: String| StoreError::Failed { object: "audit segment".into(), why };
    let (range, bytes) = built.map_err(|e| failed(e.to_string()))??;
    let object = range.name.object();
    match service.store.get(&object).await {
        Ok(there) => {
            // Nothing has been logged of it yet, so it can only be ours, from before a crash.
            if let Some(found) = adopt(service, &there, &range) {
                return Ok((found, there));
            }
            service.store.put_durably(&object, bytes.clone()).await?;
        }
        Err(StoreError::Missing(_)) => {
            service.store.create_durably(&object, bytes.clone()).await?;
        }
        Err(e) => return Err(e.into()),
    }
    Ok((range, bytes))
}

/// A segment that begins where ours does and can be read whole stays as it is: it may have been
/// stated, and the statement may be on its way.
fn adopt(service: &Service, there: &Bytes, ours: &Range) -> Option<Range> {
    let range = if ours.name.is_sealed {
        let sections = segment::unseal(there).ok()?;
        let first = SealedSection::read(sections.first()?).ok()?.first;
        let end = SealedSection::read(sections.last()?).ok()?.end();
        Range { name: ours.name.clone(), first, records: end.checked_sub(first)? }
    } else {
        let source = Source::Bytes(there.clone());
        let segment = Segment::open(source, &service.audit.identities).ok()?;
        scan::all(&segment).ok()?;
        segment.range().clone()
    };
    let fits = range.name == ours.name && range.first == ours.first;
    let is_held = range.end() <= lock(&service.audit.state).end_of(&range.name.log);
    (fits && is_held).then_some(range)
}

/// Sections that nobody here can open, as they are.
fn sealed_segment(run: &[Pending], number: u64) -> (Range, Bytes) {
    let sections: Vec<&[u8]> = run.iter().map(|pending| &*pending.sealed).collect();
    let (log, hour, first) = run.first().map_or(([0; 16], 0, 0), |p| (p.log, p.hour, p.first));
    let log = chancery_token::b64::encode(&log);
    let records = run.iter().map(|pending| pending.count).sum();
    let name = SegmentName { hour, log, number, is_sealed: true };
    (Range { name, first, records }, segment::seal(&sections))
}

fn open_run(
    run: &[Pending],
    identities: &[chancery_audit::keys::Identity],
) -> Result<Vec<Record>, chancery_audit::Error> {
    let mut opener = Opener::new(identities);
    let mut records = Vec::new();
    for pending in run {
        records.extend(SealedSection::read(&pending.sealed)?.open(&mut opener)?.records);
    }
    Ok(records)
}

impl super::State {
    /// The number behind a log's last record that waits.
    fn end_of(&self, log: &str) -> u64 {
        let of_log = |p: &&Pending| chancery_token::b64::encode(&p.log) == log;
        self.pending.iter().rfind(of_log).map_or(0, Pending::end)
    }

    /// The number of a log's next segment.
    fn next_segment(&self, log: &[u8; 16], logged: Audited) -> u64 {
        let of_log = self.flights.iter().filter(|f| *f.segment.log == *log);
        let stored = of_log.map(|f| f.segment.number.saturating_add(1)).max().unwrap_or(0);
        logged.segments.max(stored)
    }
}

impl Audit {
    /// The sections of the next segment, if it is time: one log's, of one hour, in order.
    fn due(&self, every: Duration, wal_segment_bytes: u64) -> Option<Vec<Pending>> {
        let state = lock(&self.state);
        if state.flights.len() >= MAX_FLIGHTS {
            return None;
        }
        let first = state.pending.front()?;
        let mut rows = 0;
        let mut count = 0_usize;
        let mut bytes = 0_u64;
        let mut next = first.first;
        let mut is_whole = false;
        for pending in &state.pending {
            let belongs = pending.log == first.log
                && (pending.hour, pending.opens) == (first.hour, first.opens)
                && pending.first == next;
            let upto = pending.count.saturating_add(rows);
            if !belongs || usize::try_from(upto).is_ok_and(|upto| upto > MAX_ROWS) {
                is_whole = true;
                break;
            }
            rows = upto;
            next = pending.end();
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(u64::try_from(pending.sealed.len()).unwrap_or(u64::MAX));
        }
        // A third of a write-ahead segment, of which two can wait: the entries take room beside them,
        // and a segment takes some seconds to be built, stored, and logged.
        let full = bytes >= wal_segment_bytes / 3;
        if !(is_whole || full || first.since.elapsed() >= every) {
            return None;
        }
        Some(state.pending.iter().take(count).cloned().collect())
    }

    /// The segment is stored and so is what is to be stated of it: its sections are not needed here
    /// any more. Waiting for the statement's commit would wait for ever where the write-ahead log is
    /// full of sections, because that commit needs room in it.
    async fn forget(&self, service: &Service, flight: Flight) {
        let mut objects = Vec::new();
        {
            let mut state = lock(&self.state);
            while let Some(first) = state.pending.front() {
                if first.log != *flight.segment.log || first.end() > flight.end() {
                    break;
                }
                if let Some(Pending { place: Place::Object(object), .. }) =
                    state.pending.pop_front()
                {
                    objects.push(object);
                }
            }
            state.flights.push_back(flight);
        }
        delete(service, objects).await;
    }
}
