//! QEMU, OVMF, swtpm and a kernel: packages of Debian, unpacked below `target/` and never installed.
//! QEMU and the kernel are from bookworm-backports, because bookworm's QEMU boots such kernels only
//! every other time.

use crate::run::{output, works};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";
const SUITES: &str = "Suites: bookworm bookworm-backports";
/// From backports, with the firmware of devices.
const NEW: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
/// The package that names the kernel's.
const KERNEL: &str = "linux-image-cloud-amd64";
/// And what these need beyond a machine that compiles Rust; where more is missing, it is said.
const OTHERS: [&str; 16] = [
    "ovmf",
    "seabios",
    "swtpm",
    "swtpm-libs",
    "libtpms0",
    "libcapstone4",
    "libpmem1",
    "libfdt1",
    "librdmacm1",
    "libibverbs1",
    "libslirp0",
    "libvdeplug2",
    "libndctl6",
    "libdaxctl1",
    "libnl-3-200",
    "libnl-route-3-200",
];
const LIBRARIES: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/swtpm"];

/// Where the tools are.
pub struct Tools {
    /// The emulator.
    pub qemu: PathBuf,
    /// Its files.
    pub data: [PathBuf; 2],
    /// The TPM.
    pub swtpm: PathBuf,
    /// OVMF's code.
    pub firmware: PathBuf,
    /// OVMF's variables, as a new machine has them.
    pub variables: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    unpacked: PathBuf,
}

impl Tools {
    /// Unpacks the tools, or takes those that an earlier run unpacked; an error says why there are
    /// none, which is no failure of ours.
    pub fn fetch(root: &Path) -> Result<Self> {
        ensure!(cfg!(all(target_arch = "x86_64", target_os = "linux")), "this needs x86-64");
        let folder = root.join("target/vm");
        let unpacked = folder.join("unpacked");
        if !unpacked.join("whole").is_file() {
            let packages = folder.join("packages");
            for path in [&unpacked, &packages, &folder.join("lists/partial")] {
                std::fs::create_dir_all(path).context("cannot create target/vm")?;
            }
            download(&folder, &packages).context("QEMU and its kernel are not to be had")?;
            for package in std::fs::read_dir(&packages)? {
                let mut unpack = Command::new("dpkg-deb");
                let package = package?.path();
                ensure!(
                    works(unpack.arg("-x").arg(&package).arg(&unpacked)),
                    "cannot unpack {package:?}"
                );
            }
            std::fs::write(unpacked.join("whole"), "")?;
        }
        let tools = Self {
            qemu: unpacked.join("usr/bin/qemu-system-x86_64"),
            data: [unpacked.join("usr/share/qemu"), unpacked.join("usr/share/seabios")],
            swtpm: unpacked.join("usr/bin/swtpm"),
            firmware: unpacked.join("usr/share/OVMF/OVMF_CODE_4M.fd"),
            variables: unpacked.join("usr/share/OVMF/OVMF_VARS_4M.fd"),
            kernel: kernel(&unpacked)?,
            unpacked,
        };
        for program in [&tools.qemu, &tools.swtpm] {
            ensure!(
                works(tools.command(program).arg("--version")),
                "{program:?} does not start: a library is missing"
            );
        }
        Ok(tools)
    }

    /// One of these programs, with their libraries.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let folders = LIBRARIES.map(|folder| self.unpacked.join(folder).display().to_string());
        command.env("LD_LIBRARY_PATH", folders.join(":"));
        command
    }
}

fn kernel(unpacked: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(unpacked.join("boot"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")) {
            return Ok(path);
        }
    }
    bail!("the kernel's package holds none")
}

/// Downloads every package, by lists of our own: the machine's are left alone.
fn download(folder: &Path, packages: &Path) -> Result<()> {
    let sources = std::fs::read_to_string(SOURCES).context("this is no Debian bookworm")?;
    let (first, _) = sources.split_once("\n\n").unwrap_or((&sources, ""));
    ensure!(first.contains("Suites: bookworm"), "this is no Debian bookworm");
    let lines = first.lines().map(|l| if l.starts_with("Suites:") { SUITES } else { l });
    let list = folder.join("debian.sources");
    std::fs::write(&list, lines.collect::<Vec<_>>().join("\n") + "\n")?;
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", list.display()));
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]);
        command.arg("-o").arg(format!("Dir::State::lists={}", folder.join("lists").display()));
        command.arg("-o").arg(format!("Dir::Cache={}", folder.join("cache").display()));
        command.current_dir(packages).stderr(Stdio::null());
        command
    };
    ensure!(works(apt("apt-get").arg("update")), "apt-get update fails");
    let backported = |name: &str| format!("{name}/bookworm-backports");
    let said = output(apt("apt-cache").args(["show", KERNEL]))?;
    let named = said.lines().find_map(|line| line.strip_prefix("Depends: "));
    let kernel = named.and_then(|names| names.split([' ', ',']).next()).context(KERNEL)?;
    let mut get = apt("apt-get");
    get.arg("download").args(NEW.map(backported)).args(OTHERS).arg(kernel);
    ensure!(works(&mut get), "apt-get download fails");
    Ok(())
}
