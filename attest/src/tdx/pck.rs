//! What Intel's PCK certificate says about a platform: the extension 1.2.840.113741.1.13.1.

use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};

use crate::error::Error;
use crate::x509::Cert;

const SGX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
const TCB: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2");
const PCE_SVN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2.17");
const PCE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.3");
const FMSPC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.4");
/// The platform has sixteen components.
pub(crate) const COMPONENTS: usize = 16;

/// The platform that a PCK certificate was made for.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    pub components: [u8; COMPONENTS],
    pub pce_svn: u16,
    pub pce_id: Vec<u8>,
    pub fmspc: Vec<u8>,
}

impl Platform {
    pub(crate) fn of(pck: &Cert) -> Result<Self, Error> {
        let missing = || Error::malformed("PCK certificate", "its SGX extension is not complete");
        let entries = entries(pck.extension(SGX).ok_or_else(missing)?)?;
        let octets = |id| {
            let value = find(&entries, id)?.decode_as::<&OctetStringRef>().ok()?;
            Some(value.as_bytes().to_vec())
        };
        let tcb = find(&entries, TCB).ok_or_else(missing)?;
        let tcb = sequence_of(tcb.value())?;
        let mut components = [0; COMPONENTS];
        for (number, component) in (1u32..).zip(&mut components) {
            let id = TCB.push_arc(number).map_err(|e| Error::malformed("PCK certificate", e))?;
            let svn = find(&tcb, id).and_then(|value| value.decode_as::<u8>().ok());
            *component = svn.ok_or_else(missing)?;
        }
        let pce_svn = find(&tcb, PCE_SVN).and_then(|value| value.decode_as::<u16>().ok());
        Ok(Self {
            components,
            pce_svn: pce_svn.ok_or_else(missing)?,
            pce_id: octets(PCE_ID).ok_or_else(missing)?,
            fmspc: octets(FMSPC).ok_or_else(missing)?,
        })
    }
}

fn find<'a>(entries: &[Entry<'a>], id: ObjectIdentifier) -> Option<AnyRef<'a>> {
    entries.iter().find(|(oid, _)| *oid == id).map(|(_, value)| *value)
}

type Entry<'a> = (ObjectIdentifier, AnyRef<'a>);

/// SEQUENCE OF SEQUENCE { id, value }
fn entries(der: &[u8]) -> Result<Vec<Entry<'_>>, Error> {
    let outer = AnyRef::from_der(der).map_err(|e| Error::malformed("PCK certificate", e))?;
    sequence_of(outer.value())
}

fn sequence_of(content: &[u8]) -> Result<Vec<Entry<'_>>, Error> {
    let mut found: Vec<Entry<'_>> = Vec::new();
    let mut parse = || {
        let mut reader = SliceReader::new(content)?;
        while !reader.is_finished() {
            let inner: AnyRef<'_> = reader.decode()?;
            let mut inner = SliceReader::new(inner.value())?;
            found.push((inner.decode()?, inner.decode()?));
            inner.finish()?;
        }
        Ok(())
    };
    parse().map_err(|e: x509_cert::der::Error| Error::malformed("PCK certificate", e))?;
    Ok(found)
}
