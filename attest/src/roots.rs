//! The roots that everything ends at, compiled in: see `roots/README.md` for where each is from. A
//! test compares each with its SHA-256.

use crate::policy::Product;

/// AMD's root key certificate (ARK) of a product.
pub(crate) fn amd_root(product: Product) -> &'static str {
    match product {
        Product::Milan => include_str!("../roots/amd_milan_ark.pem"),
        Product::Genoa => include_str!("../roots/amd_genoa_ark.pem"),
        Product::Turin => include_str!("../roots/amd_turin_ark.pem"),
    }
}

/// AMD's intermediate certificates: for convenience only, each is checked against its root.
pub(crate) const AMD_INTERMEDIATES: [&str; 4] = [
    include_str!("../roots/amd_milan_ask.pem"),
    include_str!("../roots/amd_milan_asvk.pem"),
    include_str!("../roots/amd_genoa_ask.pem"),
    include_str!("../roots/amd_turin_ask.pem"),
];

/// Intel SGX Root CA, which TDX quotes end at too.
pub(crate) const INTEL_SGX: &str = include_str!("../roots/intel_sgx_root.pem");

/// AWS Nitro Enclaves root.
pub(crate) const AWS_NITRO: &str = include_str!("../roots/aws_nitro_root.pem");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;
    use crate::x509::pinned;

    #[test]
    fn roots_are_the_published_ones() {
        let pins = [
            (
                amd_root(Product::Milan),
                "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
            ),
            (
                amd_root(Product::Genoa),
                "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
            ),
            (
                amd_root(Product::Turin),
                "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
            ),
            (INTEL_SGX, "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"),
            (AWS_NITRO, "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"),
        ];
        for (pem, expected) in pins {
            let root = pinned(pem).unwrap();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, root.der());
            assert_eq!(hex(digest.as_ref()), expected, "{}", root.common_name());
            assert!(root.is_signed_by(&root), "{} signs itself", root.common_name());
        }
    }

    #[test]
    fn every_intermediate_is_signed_by_the_root_of_its_product() {
        let roots = [Product::Milan, Product::Genoa, Product::Turin].map(amd_root);
        for pem in AMD_INTERMEDIATES {
            let cert = pinned(pem).unwrap();
            let by = roots.iter().filter(|root| cert.is_signed_by(&pinned(root).unwrap())).count();
            assert_eq!(by, 1, "{}", cert.common_name());
        }
    }
}
