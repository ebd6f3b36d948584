//! One virtual machine and its TPM. Dropping it ends both.

use super::tools::Tools;
use super::{tpm, wait_for};
use crate::image::measure::{MEMORY_MIB, Registers};
use crate::service::{tail, terminate};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const CONSOLE_LINES: usize = 20;
/// What the signer says once it serves.
const SERVING: &str = "in a machine of its own";

/// A running machine. It ends before its TPM.
pub struct Machine {
    qemu: Ending,
    _swtpm: Ending,
    folder: PathBuf,
}

/// A process that ends with its value.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        terminate(&mut self.0);
    }
}

impl Machine {
    /// Starts TPM and machine, in files of `folder` that an earlier machine may have left.
    pub fn start(
        tools: &Tools,
        folder: &Path,
        initramfs: &Path,
        command_line: &str,
    ) -> Result<Self> {
        let _ = std::fs::remove_dir_all(folder.join("tpm"));
        std::fs::create_dir(folder.join("tpm")).context("folder of the TPM")?;
        for name in ["console.log", "tpm.log", "tpm.sock", "signer.sock"] {
            let _ = std::fs::remove_file(folder.join(name));
        }
        std::fs::copy(&tools.variables, folder.join("variables.fd")).context("OVMF")?;
        let swtpm = spawn(&mut swtpm(tools, folder))?;
        wait_for(|| Ok(folder.join("tpm.sock").exists()), "the TPM is not there")?;
        let qemu = spawn(&mut qemu(tools, folder, initramfs, command_line))?;
        Ok(Self { qemu, _swtpm: swtpm, folder: folder.to_owned() })
    }

    /// The socket whose other end is the signer's port.
    pub fn signer(&self) -> PathBuf {
        self.folder.join("signer.sock")
    }

    /// The last lines of the machine's console.
    pub fn console(&self) -> String {
        let text = std::fs::read(self.folder.join("console.log")).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), CONSOLE_LINES)
    }

    /// Waits until the signer says that it runs.
    pub fn await_signer(&mut self) -> Result<()> {
        let (qemu, folder) = (&mut self.qemu.0, &self.folder);
        let runs = || {
            if let Some(status) = qemu.try_wait()? {
                bail!("the machine ended with {status}");
            }
            let text = std::fs::read(folder.join("console.log")).unwrap_or_default();
            Ok(String::from_utf8_lossy(&text).contains(SERVING))
        };
        let result = wait_for(runs, "the signer does not run");
        result.with_context(|| format!("the console says:\n{}", self.console()))
    }

    /// Waits until the machine has ended by itself.
    pub fn await_end(&mut self) -> Result<()> {
        wait_for(|| Ok(self.qemu.0.try_wait()?.is_some()), "the machine did not end")
    }

    /// PCR 4 and PCR 9 as the TPM has them once the kernel runs.
    pub fn registers(&self) -> Result<Registers> {
        let mut found = None;
        let measured = || {
            let log = std::fs::read_to_string(self.folder.join("tpm.log")).unwrap_or_default();
            found = tpm::registers(&log)?;
            Ok(found.is_some())
        };
        wait_for(measured, "the kernel was not measured")?;
        found.context("the kernel was not measured")
    }
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn swtpm(tools: &Tools, folder: &Path) -> Command {
    let mut swtpm = tools.command(&tools.swtpm);
    swtpm.args(["socket", "--tpm2", "--flags", "startup-clear", "--terminate"]);
    swtpm.args(["--tpmstate", &format!("dir={}", at(folder, "tpm"))]);
    swtpm.args(["--ctrl", &format!("type=unixio,path={}", at(folder, "tpm.sock"))]);
    // Each command that the TPM gets is in its log: what extends a register, among them.
    swtpm.args(["--log", &format!("level=20,file={}", at(folder, "tpm.log"))]);
    swtpm
}

fn qemu(tools: &Tools, folder: &Path, initramfs: &Path, command_line: &str) -> Command {
    let mut qemu = tools.command(&tools.qemu);
    for data in &tools.data {
        qemu.arg("-L").arg(data);
    }
    // Nothing but what is said here: no network, no disk, no display, no keyboard.
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "1"]);
    qemu.args(["-m", &MEMORY_MIB.to_string()]);
    let firmware = "if=pflash,format=raw";
    let code = tools.firmware.display();
    qemu.args(["-drive", &format!("{firmware},readonly=on,file={code}")]);
    qemu.args(["-drive", &format!("{firmware},file={}", at(folder, "variables.fd"))]);
    qemu.arg("-kernel").arg(&tools.kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", command_line, "-serial", &format!("file:{}", at(folder, "console.log"))]);
    qemu.args(["-chardev", &format!("socket,id=tpm,path={}", at(folder, "tpm.sock"))]);
    qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
    let line = format!("socket,id=signer,path={},server=on,wait=off", at(folder, "signer.sock"));
    qemu.args(["-device", "virtio-serial-pci", "-chardev", &line]);
    qemu.args(["-device", "virtserialport,chardev=signer,name=chancery"]);
    qemu
}

fn spawn(command: &mut Command) -> Result<Ending> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let program = command.get_program().to_owned();
    command.spawn().map(Ending).with_context(|| format!("cannot start {program:?}"))
}
