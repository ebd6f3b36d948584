//! `cargo xtask image [KERNEL]`: the initramfs of a machine that holds nothing but the signer, the
//! command line for its kernel, and, where the kernel is named, the reference values of all three.
//! The same sources and compiler give the same bytes: the archive has no times, no owners and no
//! order but ours, and is written twice here to show it.

mod cpio;
pub mod measure;

use crate::recipes::Outcome;
use crate::run::{cargo, output, run};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// glibc is linked in, so that the machine needs no library, by the target's full name, so that
/// the flags are those of the signer and not of build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What the kernel is told. The signer's end is the machine's: `panic=-1` restarts at once, which
/// whoever runs the machine turns into an end (`-no-reboot`).
pub const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";

/// What the recipe makes.
pub struct Image {
    /// The archive: `/dev/console` and `/init`.
    pub initramfs: PathBuf,
}

/// Builds the image into `target/image/`.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    ensure!(arguments.len() < 2, "unexpected arguments `{}`", arguments.join(" "));
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Ok(Outcome::Skipped("the image is for x86-64, and built there".into()));
    }
    let image = build(root)?;
    if let Some(kernel) = arguments.first() {
        let kernel = std::fs::read(kernel).with_context(|| format!("cannot read {kernel}"))?;
        let references = image.references(&kernel)?;
        print!("{references}");
        std::fs::write(image.initramfs.with_file_name("reference.toml"), references)?;
    }
    Ok(Outcome::Passed)
}

impl Image {
    /// What a TPM says of this image under this kernel, as `chancery attest verify` reads it.
    pub fn references(&self, kernel: &[u8]) -> Result<String> {
        let initramfs = std::fs::read(&self.initramfs).context("cannot read the archive")?;
        let registers = measure::predict(kernel, &initramfs, COMMAND_LINE)?;
        Ok(format!(
            "# QEMU q35 with {} MiB, OVMF, -kernel. PCR 4 is the kernel, PCR 9 command line and \
             initramfs.\n[[reference]]\nrelease = \"chancery {}\"\nkind = \"tpm\"\n\
             registers = {{ pcr4 = \"{}\", pcr9 = \"{}\" }}\n",
            measure::MEMORY_MIB,
            env!("CARGO_PKG_VERSION"),
            registers.pcr4,
            registers.pcr9
        ))
    }
}

/// Builds it.
pub fn build(root: &Path) -> Result<Image> {
    let signer = signer(root)?;
    let first = cpio::archive(&signer)?;
    ensure!(first == cpio::archive(&signer)?, "the archive is not the same twice");
    let folder = target_folder(root)?.join("image");
    std::fs::create_dir_all(&folder).context("cannot create target/image")?;
    let initramfs = folder.join("initramfs.cpio");
    std::fs::write(&initramfs, &first).context("cannot write the archive")?;
    std::fs::write(folder.join("cmdline"), COMMAND_LINE).context("cannot write")?;
    let digest = output(Command::new("sha256sum").arg(&initramfs))?;
    println!("image: {} bytes of signer in {} of archive", signer.len(), first.len());
    println!("image: sha256 {digest}image: command line `{COMMAND_LINE}`");
    Ok(Image { initramfs })
}

/// The signer, linked statically, without symbols and without this machine's paths.
fn signer(root: &Path) -> Result<Vec<u8>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let flags = format!(
        "-C target-feature=+crt-static -C strip=symbols --remap-path-prefix={}=/cargo \
         --remap-path-prefix={}=/chancery",
        home.display(),
        root.display()
    );
    let mut command = cargo(root, &["build", "--locked", "--release", "-p", "chancery-signer"]);
    command.args(["--bin", "chancery-signer", "--target", TARGET]).env("RUSTFLAGS", flags);
    run(&mut command)?;
    let path = target_folder(root)?.join(TARGET).join("release/chancery-signer");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn target_folder(root: &Path) -> Result<PathBuf> {
    let metadata = output(&mut cargo(root, &["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    Ok(PathBuf::from(target.context("cargo metadata names no target folder")?))
}
