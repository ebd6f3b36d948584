//! A disk that loses what was not synced, fails on demand, and a model of what the log owes.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::wal::files::{Files, SegmentFile, fill_segment};
use crate::wal::format::SegmentHeader;
use crate::wal::{Record, RecordKind, SEGMENT_COUNT, Wal, WalError};

pub const ID: [u8; 16] = *b"identity of sim.";
pub const LOG: [u8; 16] = *b"a signer's logid";
const SECTOR: usize = 512;

/// How one operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing; a failed sync drops the dirty pages.
    Nothing,
    /// It fails after having done half.
    Half,
    /// It fails although it was done.
    Persisted,
    /// A write writes only a part, without error; a sync is not affected.
    Short,
}

pub const FAULTS: [Fault; 4] = [Fault::Nothing, Fault::Half, Fault::Persisted, Fault::Short];

/// What ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed; the kernel's pages stay.
    Process,
    /// As above, and the kernel then reads clean pages from the disk again.
    ProcessEvicted,
    /// Power is lost; each sector not yet synced is on disk or not, as the bits say.
    Power(u64),
}

#[derive(Clone)]
struct Disk {
    /// What survives a loss of power.
    durable: Vec<u8>,
    /// What reads return: the page cache.
    view: Vec<u8>,
    /// Sectors that a sync would write.
    dirty: BTreeSet<usize>,
}

impl Disk {
    fn persist(&mut self, sector: usize) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        self.durable[range.clone()].copy_from_slice(&self.view[range]);
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        assert!(offset + bytes.len() <= self.view.len(), "write beyond the end");
        self.view[offset..offset + bytes.len()].copy_from_slice(bytes);
        if !bytes.is_empty() {
            let last = (offset + bytes.len() - 1) / SECTOR;
            self.dirty.extend(offset / SECTOR..=last);
        }
    }

    fn crash(&mut self, crash: Crash) {
        match crash {
            Crash::Process => {}
            Crash::ProcessEvicted => {
                for sector in 0..self.view.len() / SECTOR {
                    if !self.dirty.contains(&sector) {
                        let range = sector * SECTOR..(sector + 1) * SECTOR;
                        self.view[range.clone()].copy_from_slice(&self.durable[range]);
                    }
                }
            }
            Crash::Power(mut bits) => {
                for sector in std::mem::take(&mut self.dirty) {
                    // A xorshift, so that long writes have independent bits too.
                    bits ^= bits << 13;
                    bits ^= bits >> 7;
                    bits ^= bits << 17;
                    if bits & 1 == 1 {
                        self.persist(sector);
                    }
                }
                self.view = self.durable.clone();
            }
        }
    }
}

/// All disks, and the fault that is due.
pub struct Machine {
    disks: Vec<Disk>,
    /// Writes and syncs so far.
    pub operations: usize,
    pub syncs: usize,
    /// The operation (by number) that goes wrong.
    pub fault: Option<(usize, Fault)>,
}

impl Machine {
    fn due(&mut self) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        self.fault.filter(|(at, _)| *at == number).map(|(_, f)| f)
    }

    pub fn durable(&self) -> Vec<Vec<u8>> {
        self.disks.iter().map(|disk| disk.durable.clone()).collect()
    }

    pub fn replace(&mut self, segments: Vec<Vec<u8>>) {
        for (disk, bytes) in self.disks.iter_mut().zip(segments) {
            disk.view = bytes.clone();
            disk.durable = bytes;
            disk.dirty.clear();
        }
    }
}

pub struct SimFile {
    pub machine: Arc<Mutex<Machine>>,
    pub index: usize,
}

impl SegmentFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.machine.lock().unwrap();
        let (written, result) = match machine.due() {
            None => (bytes.len(), Ok(bytes.len())),
            Some(Fault::Nothing) => (0, Err(eio())),
            // Not a whole number of sectors, as the kernel may do.
            Some(Fault::Half) => (bytes.len() / 2 + 1, Err(eio())),
            Some(Fault::Persisted) => (bytes.len(), Err(eio())),
            Some(Fault::Short) => (bytes.len() / 3 + 1, Ok(bytes.len() / 3 + 1)),
        };
        machine.disks[self.index].write(&bytes[..written], offset as usize);
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.machine.lock().unwrap();
        let fault = machine.due();
        machine.syncs += 1;
        let disk = &mut machine.disks[self.index];
        for (number, sector) in std::mem::take(&mut disk.dirty).into_iter().enumerate() {
            let done = match fault {
                None | Some(Fault::Persisted | Fault::Short) => true,
                Some(Fault::Half) => number % 2 == 0,
                Some(Fault::Nothing) => false,
            };
            if done {
                disk.persist(sector);
            }
        }
        match fault {
            None | Some(Fault::Short) => Ok(()),
            Some(_) => Err(eio()),
        }
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let machine = self.machine.lock().unwrap();
        let view = &machine.disks[self.index].view;
        bytes.copy_from_slice(&view[offset as usize..offset as usize + bytes.len()]);
        Ok(())
    }
}

fn eio() -> io::Error {
    io::Error::other("injected")
}

/// A log on simulated disks beside a model of what it must return.
pub struct Bench {
    pub machine: Arc<Mutex<Machine>>,
    pub wal: Option<Wal>,
    segment_bytes: u64,
    /// Payloads of the acknowledged records; record 1 is at index 0.
    pub acknowledged: Vec<Vec<u8>>,
    /// Payloads whose append failed, for the next sequence number.
    attempted: Vec<Vec<u8>>,
    pub released: u64,
}

impl Bench {
    /// An empty log.
    pub fn new(segment_bytes: u64) -> Self {
        let blank = vec![0; segment_bytes as usize];
        let disk = Disk { durable: blank.clone(), view: blank, dirty: BTreeSet::new() };
        let machine = Arc::new(Mutex::new(Machine {
            disks: vec![disk; usize::from(SEGMENT_COUNT)],
            operations: 0,
            syncs: 0,
            fault: None,
        }));
        for ordinal in 0..SEGMENT_COUNT {
            let index = usize::from(ordinal);
            let file = SimFile { machine: machine.clone(), index };
            let header = SegmentHeader { id: ID, ordinal, count: SEGMENT_COUNT, segment_bytes };
            fill_segment(&file, &header).unwrap();
            file.sync_data().unwrap();
        }
        let mut bench = Self {
            machine,
            wal: None,
            segment_bytes,
            acknowledged: Vec::new(),
            attempted: Vec::new(),
            released: 0,
        };
        bench.open().unwrap();
        bench.machine.lock().unwrap().operations = 0;
        bench
    }

    pub fn files(&self) -> Files {
        let file = |index| -> Box<dyn SegmentFile> {
            let machine = self.machine.clone();
            Box::new(SimFile { machine, index })
        };
        (0..usize::from(SEGMENT_COUNT))
            .map(|index| (PathBuf::from(format!("segment-{index}")), file(index)))
            .collect()
    }

    fn open(&mut self) -> Result<(), WalError> {
        let (wal, records) = Wal::from_files(ID, self.files(), self.segment_bytes)?;
        self.check(&records);
        assert_eq!(wal.last_sequence(), self.acknowledged.len() as u64);
        self.wal = Some(wal);
        Ok(())
    }

    /// Appends once; whether it was acknowledged.
    pub fn append(&mut self, payload: Vec<u8>) -> Result<(), WalError> {
        let index = self.acknowledged.len() as u64;
        let wal = self.wal.as_mut().unwrap();
        match wal.append(RecordKind::Batch, LOG, index, &payload) {
            Ok(sequence) => {
                assert_eq!(sequence, index + 1);
                self.acknowledged.push(payload);
                self.attempted.clear();
                Ok(())
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                if !matches!(error, WalError::Full { .. }) {
                    self.attempted.push(payload);
                }
                Err(error)
            }
        }
    }

    pub fn release(&mut self, through: u64) {
        let through = through.min(self.acknowledged.len() as u64);
        self.wal.as_mut().unwrap().release(through);
        self.released = self.released.max(through);
    }

    /// Crashes and opens again, trying once more if a fault hits the recovery.
    pub fn crash(&mut self, crash: Crash) {
        for _ in 0..2 {
            self.wal = None;
            for disk in &mut self.machine.lock().unwrap().disks {
                disk.crash(crash);
            }
            if self.open().is_ok() {
                return;
            }
        }
        panic!("the log does not open although at most one operation failed");
    }

    /// What recovery owes: every acknowledged record that is not released, unchanged, and at
    /// most the one that was attempted.
    fn check(&mut self, records: &[Record]) {
        let mut expected = records.first().map_or(1, |record| record.sequence);
        assert!(records.is_empty() || expected <= self.released + 1, "hole after the released");
        for record in records {
            assert_eq!(record.sequence, expected);
            assert_eq!((record.log, record.kind), (LOG, RecordKind::Batch));
            assert_eq!(record.first_index, expected - 1);
            match self.acknowledged.get(expected as usize - 1) {
                Some(payload) => assert_eq!(&record.payload, payload),
                None => {
                    assert!(self.attempted.contains(&record.payload), "nobody wrote this");
                    self.acknowledged.push(record.payload.clone());
                    self.attempted.clear();
                }
            }
            expected += 1;
        }
        let missing = self.acknowledged.len() as u64 > self.released
            && expected <= self.acknowledged.len() as u64;
        assert!(!missing, "record {expected} is lost");
    }
}

/// A payload that differs from every other seed's.
pub fn payload(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64)
        .map(|i| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 56)) as u8 ^ (i / 56) as u8)
        .collect()
}
