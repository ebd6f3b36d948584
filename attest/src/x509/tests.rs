use rcgen::{
    BasicConstraints as Constraint, CertificateParams, CertificateRevocationListParams,
    CustomExtension, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;
use crate::result::Kind;

/// 2026-06-01; the certificates here are valid in 2026, the lists in June.
const AT: u64 = 1_780_272_000;
const NAMES: ChainNames =
    ChainNames { links: "links", validity: "validity", revocation: "revocation" };

fn params(name: &str, serial: u64, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    if matches!(is_ca, IsCa::Ca(_)) {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    params.is_ca = is_ca;
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 12, 31);
    params
}

/// A root, an authority and a leaf; the tests change one thing each.
struct Made {
    root: Issuer<'static, KeyPair>,
    authority: Issuer<'static, KeyPair>,
    chain: [Cert; 3],
}

fn made(change: impl Fn(&str, &mut CertificateParams)) -> Made {
    let key = || KeyPair::generate().unwrap();
    let (root_key, authority_key, leaf_key) = (key(), key(), key());
    let mut root = params("root", 1, IsCa::Ca(Constraint::Unconstrained));
    let mut authority = params("authority", 2, IsCa::Ca(Constraint::Constrained(0)));
    let mut leaf = params("leaf", 3, IsCa::NoCa);
    change("root", &mut root);
    change("authority", &mut authority);
    change("leaf", &mut leaf);
    let root_cert = root.self_signed(&root_key).unwrap();
    let root = Issuer::new(root, root_key);
    let authority_cert = authority.signed_by(&authority_key, &root).unwrap();
    let authority = Issuer::new(authority, authority_key);
    let leaf_cert = leaf.signed_by(&leaf_key, &authority).unwrap();
    let chain = [leaf_cert.der(), authority_cert.der(), root_cert.der()];
    Made { root, authority, chain: chain.map(|der| Cert::parse(der).unwrap()) }
}

fn list(issuer: &Issuer<'static, KeyPair>, revoked: &[u64], until: (i32, u8)) -> Crl {
    let entry = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 5, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 5, 15),
        next_update: date_time_ymd(until.0, until.1, 30),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Crl::parse(params.signed_by(issuer).unwrap().der()).unwrap()
}

/// What failed, with its reason.
fn failures(chain: &[Cert], crls: &[Crl], listed: usize, at: u64) -> Vec<(&'static str, String)> {
    let mut appraisal = Appraisal::new(Kind::Snp, at);
    let chain: Vec<&Cert> = chain.iter().collect();
    check_chain(&mut appraisal, &NAMES, &chain, crls, Some(listed));
    let checks = appraisal.into_checks();
    checks.into_iter().filter(|c| !c.passed).map(|c| (c.name, c.value)).collect()
}

fn reason(chain: &[Cert]) -> String {
    let found = failures(chain, &[], usize::MAX, AT);
    let [(name, why)] = &*found else { panic!("{found:?}") };
    assert_eq!(*name, "links");
    why.clone()
}

#[test]
fn a_whole_chain_with_lists_passes() {
    let made = made(|_, _| {});
    let crls = [list(&made.root, &[77], (2026, 6)), list(&made.authority, &[78], (2026, 6))];
    assert_eq!(failures(&made.chain, &crls, 0, AT), []);
    assert_eq!(failures(&made.chain, &[], usize::MAX, AT), []);
}

#[test]
fn a_revoked_leaf_or_authority_is_refused() {
    let made = made(|_, _| {});
    let crls = [list(&made.root, &[], (2026, 6)), list(&made.authority, &[9, 3], (2026, 6))];
    let leaf = failures(&made.chain, &crls, 0, AT);
    assert_eq!(leaf, [("revocation", "`leaf` is revoked by `authority`".to_owned())]);
    // A list that is not demanded is still looked at.
    let crls = [list(&made.root, &[2], (2026, 6))];
    let authority = failures(&made.chain, &crls, usize::MAX, AT);
    assert_eq!(authority, [("revocation", "`authority` is revoked by `root`".to_owned())]);
}

#[test]
fn a_list_must_be_there_in_force_and_genuine() {
    let made = made(|_, _| {});
    let missing = failures(&made.chain, &[list(&made.root, &[], (2026, 6))], 0, AT);
    assert!(missing[0].1.contains("no list of `authority`"), "{missing:?}");
    assert_eq!(failures(&made.chain, &[list(&made.root, &[], (2026, 6))], 1, AT), []);
    let stale = failures(&made.chain, &[list(&made.root, &[], (2026, 6))], 1, AT + 3_000_000);
    assert!(stale[0].1.contains("next issue was due"), "{stale:?}");
    let early = failures(&made.chain, &[list(&made.root, &[], (2026, 6))], 1, AT - 3_000_000);
    assert!(early[0].1.contains("was issued at"), "{early:?}");
    // Another issuer of the same name.
    let other = self::made(|_, _| {});
    let forged = failures(&made.chain, &[list(&other.root, &[], (2026, 6))], 1, AT);
    assert!(forged[0].1.contains("signature of `root` on its list is wrong"), "{forged:?}");
}

#[test]
fn validity_is_judged_for_each_certificate() {
    for name in ["leaf", "authority", "root"] {
        let expired = made(|which, params| {
            if which == name {
                params.not_after = date_time_ymd(2026, 5, 1);
            }
        });
        let found = failures(&expired.chain, &[], usize::MAX, AT);
        assert_eq!(found.len(), 1);
        assert!(found[0].1.starts_with(&format!("`{name}` expired at ")), "{found:?}");
        let future = made(|which, params| {
            if which == name {
                params.not_before = date_time_ymd(2026, 7, 1);
            }
        });
        let found = failures(&future.chain, &[], usize::MAX, AT);
        assert!(found[0].1.starts_with(&format!("`{name}` is valid from ")), "{found:?}");
    }
}

#[test]
fn only_authorities_issue_and_only_so_deep() {
    let no_ca = made(|which, params| {
        if which == "authority" {
            params.is_ca = IsCa::ExplicitNoCa;
        }
    });
    assert_eq!(reason(&no_ca.chain), "`authority` is no certificate authority");
    let shallow = made(|which, params| {
        if which == "root" {
            params.is_ca = IsCa::Ca(Constraint::Constrained(0));
        }
    });
    assert_eq!(reason(&shallow.chain), "`root` may not have 1 authorities below it");
    let leaf = made(|which, params| {
        if which == "leaf" {
            params.is_ca = IsCa::Ca(Constraint::Unconstrained);
        }
    });
    assert_eq!(reason(&leaf.chain), "`leaf` is an authority, expected a leaf");
    let usage = made(|which, params| {
        if which == "authority" {
            params.key_usages = vec![KeyUsagePurpose::CrlSign];
        }
    });
    assert_eq!(reason(&usage.chain), "`authority` may not sign certificates");
}

#[test]
fn links_are_by_name_and_by_signature() {
    let (one, two) = (made(|_, _| {}), made(|_, _| {}));
    let [leaf, _, root] = one.chain;
    let [_, authority, _] = two.chain;
    assert_eq!(
        reason(&[leaf.clone(), authority, root.clone()]),
        "the signature of `authority` on `leaf` is wrong"
    );
    assert_eq!(reason(&[leaf, root]), "`leaf` was not issued by `root`");
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    let made = made(|which, params| {
        if which == "leaf" {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        }
    });
    assert_eq!(
        reason(&made.chain),
        "`leaf` has the critical extension `1.2.3.4`, which is not known"
    );
}
