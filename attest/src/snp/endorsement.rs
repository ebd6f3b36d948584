//! The key that signs reports, as AMD certifies it: VCEK or VLEK, its intermediate, its root, and the
//! extensions that say which firmware and which chip it belongs to (AMD 57230, section 3.1).

use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, OctetStringRef};

use super::report::Tcb;
use crate::bytes::Base64;
use crate::error::Error;
use crate::policy::{Product, SigningKey};
use crate::roots;
use crate::x509::{Cert, MAX_CERTIFICATES, pinned};

const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");

/// The chain of the key that signed a report.
pub(crate) struct Endorsement {
    pub product: Product,
    pub key: SigningKey,
    leaf: Cert,
    intermediate: Cert,
    root: Cert,
}

impl Endorsement {
    /// Finds the chain: the first certificate whose subject is a VCEK or a VLEK, the intermediate of
    /// its issuer's name (from the evidence or built in), and the root of the product. Names choose,
    /// signatures are checked afterwards.
    pub(crate) fn find(certificates: &[Base64]) -> Result<Self, Error> {
        if certificates.len() > MAX_CERTIFICATES {
            let why = format!("{} of them, more than {MAX_CERTIFICATES}", certificates.len());
            return Err(Error::malformed("certificates", why));
        }
        let given =
            certificates.iter().map(|der| Cert::parse(&der.0)).collect::<Result<Vec<_>, _>>()?;
        let leaf = given.iter().find_map(|cert| Some((cert.clone(), signing_key(cert)?)));
        let Some((leaf, key)) = leaf else {
            return Err(Error::Missing {
                what: "the certificate of the signing key (VCEK or VLEK)",
                hint: "AMD's key distribution service and the host's certificate table have it",
            });
        };
        let built_in = roots::AMD_INTERMEDIATES.iter().map(|pem| pinned(pem));
        let built_in = built_in.collect::<Result<Vec<_>, _>>()?;
        let by_name = |cert: &&Cert| cert.subject() == leaf.issuer();
        let Some(intermediate) = given.iter().chain(&built_in).find(by_name).cloned() else {
            return Err(Error::Missing {
                what: "the intermediate certificate (ASK or ASVK)",
                hint: "AMD's key distribution service has it, as `cert_chain`",
            });
        };
        let (product, root) = root_of(&intermediate)?;
        Ok(Self { product, key, leaf, intermediate, root })
    }

    pub(crate) fn chain(&self) -> [&Cert; 3] {
        [&self.leaf, &self.intermediate, &self.root]
    }

    pub(crate) fn leaf(&self) -> &Cert {
        &self.leaf
    }

    /// Whether the names along the chain are those of this key: a VLEK stands under an ASVK only.
    pub(crate) fn intermediate_name(&self) -> Result<String, String> {
        let product = self.product.as_str();
        let expected = match self.key {
            SigningKey::Vcek => format!("SEV-{product}"),
            SigningKey::Vlek => format!("SEV-VLEK-{product}"),
        };
        let name = self.intermediate.common_name();
        if name == expected { Ok(name) } else { Err(format!("`{name}`, expected `{expected}`")) }
    }

    /// The product that the leaf names: `Milan-B0`, `Genoa`, `Turin`.
    pub(crate) fn product_name(&self) -> Option<String> {
        let der = self.leaf.extension(PRODUCT_NAME)?;
        Ia5StringRef::from_der(der).ok().map(|name| name.as_str().to_owned())
    }

    /// The firmware that the key was derived for.
    pub(crate) fn tcb(&self) -> Option<Tcb> {
        let part = |id| u8::from_der(self.leaf.extension(id)?).ok();
        Some(Tcb {
            fmc: if self.product == Product::Turin { part(FMC)? } else { 0 },
            bootloader: part(BOOTLOADER)?,
            tee: part(TEE)?,
            snp: part(SNP)?,
            microcode: part(MICROCODE)?,
        })
    }

    /// The chip that the key was derived on, zero-padded as in a report: 64 bytes, on Turin 8.
    pub(crate) fn chip_id(&self) -> Option<Vec<u8>> {
        let length = if self.product == Product::Turin { 8 } else { 64 };
        let raw = self.leaf.extension(HARDWARE_ID)?;
        // AMD writes the bytes bare; some certificates have them inside one more octet string.
        let bare = if raw.len() == length {
            raw
        } else {
            <&OctetStringRef>::from_der(raw).ok()?.as_bytes()
        };
        (bare.len() == length).then(|| {
            let mut id = bare.to_vec();
            id.resize(64, 0);
            id
        })
    }
}

fn signing_key(cert: &Cert) -> Option<SigningKey> {
    match cert.common_name().as_str() {
        "SEV-VCEK" => Some(SigningKey::Vcek),
        "SEV-VLEK" => Some(SigningKey::Vlek),
        _ => None,
    }
}

fn root_of(intermediate: &Cert) -> Result<(Product, Cert), Error> {
    for product in [Product::Milan, Product::Genoa, Product::Turin] {
        let root = pinned(roots::amd_root(product))?;
        if root.subject() == intermediate.issuer() {
            return Ok((product, root));
        }
    }
    let why = format!("`{}` is of no product that is known here", intermediate.common_name());
    Err(Error::malformed("certificate chain", why))
}
