//! `cargo xtask vm`: the image of `cargo xtask image` boots, a service on this side gets tokens from
//! inside it, and a TPM saw exactly what was predicted.
//!
//! QEMU emulates the processor and `swtpm` the TPM: that proves the image, the line to it and the
//! prediction, and nothing about what a host can do to such a machine.

mod machine;
mod tools;
mod tpm;

use crate::image::{self, COMMAND_LINE, measure};
use crate::recipes::Outcome;
use crate::run::{output, run};
use crate::service::{Binaries, Service, TempFolder, free_addresses};
use anyhow::{Context as _, Result, ensure};
use machine::Machine;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tools::Tools;

/// Builds the image, and boots it three times: as it is, with another command line, with another
/// initramfs.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    ensure!(arguments.is_empty(), "unexpected arguments `{}`", arguments.join(" "));
    let tools = match Tools::fetch(root) {
        Ok(tools) => tools,
        Err(why) => return Ok(Outcome::Skipped(format!("{why:#}"))),
    };
    let image = image::build(root)?;
    let binaries = Binaries::build(root)?;
    let kernel = std::fs::read(&tools.kernel).context("kernel")?;
    print!("{}", image.references(&kernel)?);
    let initramfs = std::fs::read(&image.initramfs).context("initramfs")?;
    let predicted = measure::predict(&kernel, &initramfs, COMMAND_LINE)?;

    let folder = TempFolder::new("vm")?;
    let machine = Machine::start(&tools, folder.path(), &image.initramfs, COMMAND_LINE)?;
    main_job(&binaries, machine, folder.path(), &predicted)?;

    let changed = Machine::start(&tools, folder.path(), &image.initramfs, "console=ttyS0 debug")?;
    let seen = changed.registers()?;
    drop(changed);
    ensure!(seen.pcr4 == predicted.pcr4 && seen.pcr9 != predicted.pcr9, "command line: {seen:?}");
    println!("vm: another command line is another PCR 9");

    let other = folder.path().join("other.cpio");
    std::fs::write(&other, [initramfs, vec![0; 512]].concat())?;
    let changed = Machine::start(&tools, folder.path(), &other, COMMAND_LINE)?;
    let seen = changed.registers()?;
    drop(changed);
    ensure!(seen.pcr4 != predicted.pcr4 && seen.pcr9 != predicted.pcr9, "initramfs: {seen:?}");
    println!("vm: another initramfs is another PCR 9, and by its size another PCR 4");
    Ok(Outcome::Passed)
}

/// A token from inside, a service that goes on with the same signer, and an end of both.
fn main_job(
    binaries: &Binaries,
    mut machine: Machine,
    folder: &Path,
    predicted: &measure::Registers,
) -> Result<()> {
    let started = Instant::now();
    machine.await_signer()?;
    println!("vm: the signer ran after {:.1} s", started.elapsed().as_secs_f32());
    let signer = format!("unix:{}", machine.signer().display());
    let addresses = free_addresses()?;
    let service = Service::attached(binaries, folder, addresses, &signer)
        .with_context(|| format!("the console says:\n{}", machine.console()))?;
    token(binaries, &service)?;
    println!("vm: a token after {:.1} s", started.elapsed().as_secs_f32());
    let seen = machine.registers()?;
    ensure!(seen == *predicted, "the TPM saw {seen:?}, predicted was {predicted:?}");
    println!("vm: PCR 4 and PCR 9 are as predicted");

    drop(service);
    let service = Service::attached(binaries, folder, addresses, &signer)
        .with_context(|| format!("the console says:\n{}", machine.console()))?;
    token(binaries, &service)?;
    ensure!(service.log_tail().contains("fresh=false"), "a new signer:\n{}", service.log_tail());
    println!("vm: the next service goes on with the same signer");

    let mut end = Command::new(&binaries.chancery);
    run(end.args(["signer", "end", "--data"]).arg(service.data()))?;
    machine.await_end()?;
    println!("vm: the machine ended with its signer");
    Ok(())
}

fn token(binaries: &Binaries, service: &Service) -> Result<()> {
    let mut command = Command::new(&binaries.chancery);
    command.args(["token", "--realm", "consumers", "--audience", "https://api.example"]);
    let token = output(command.arg("--data").arg(service.data()))
        .with_context(|| format!("the service says:\n{}", service.log_tail()))?;
    ensure!(token.split('.').count() == 3, "this is no token: {token}");
    Ok(())
}

/// Waits for something to be there; an emulated processor on a busy machine gets much patience.
fn wait_for(mut there: impl FnMut() -> Result<bool>, what: &str) -> Result<()> {
    const WITHIN: Duration = Duration::from_secs(180);
    const POLL: Duration = Duration::from_millis(100);
    let started = Instant::now();
    while !there()? {
        ensure!(started.elapsed() < WITHIN, "{what} within {} s", WITHIN.as_secs());
        std::thread::sleep(POLL);
    }
    Ok(())
}
