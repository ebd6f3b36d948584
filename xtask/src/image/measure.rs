//! What a TPM will say of the image, before it boots: PCR 4 (the kernel) and PCR 9 (its command line
//! and its initramfs), as OVMF and the kernel's EFI stub measure a machine that QEMU starts with
//! `-kernel`. PCR 0 to 3 and 7 speak of the firmware and of the machine, and are not predicted.

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// The machine's memory. It is part of the measurement: QEMU writes where the initramfs lies into the
/// kernel's header, before the firmware hashes it.
pub const MEMORY_MIB: u32 = 512;

/// QEMU's machine type q35 keeps this much for ACPI tables below the top of its memory.
const ACPI_BYTES: u32 = 0x2_8000;
/// Where QEMU puts the real-mode part of a kernel, and the command line.
const REAL_MODE_AT: u32 = 0x1_0000;
const COMMAND_LINE_AT: u32 = 0x2_0000;
/// Room that QEMU leaves below the end of the real-mode heap.
const HEAP_MARGIN: u32 = 0x200;
const PAGE: u32 = 4_096;

/// Fields of the kernel's header, by the x86 boot protocol (Documentation/arch/x86/boot.rst).
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const RAMDISK: usize = 0x218;
const HEAP_END: usize = 0x224;
const COMMAND_LINE: usize = 0x228;
const XLOADFLAGS: usize = 0x236;
const LOADER_QEMU: u8 = 0xb0;
const CAN_USE_HEAP: u8 = 0x80;
const LOADED_ABOVE_4G: u8 = 0x02;

/// The two registers, in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
pub struct Registers {
    /// The kernel, with the place and size of the initramfs in its header.
    pub pcr4: String,
    /// The command line, then the initramfs.
    pub pcr9: String,
}

/// Predicts both.
pub fn predict(kernel: &[u8], initramfs: &[u8], command_line: &str) -> Result<Registers> {
    let booted = authenticode(&as_qemu_loads(kernel, initramfs)?)?;
    // Firmware says that it starts something, and then that the machine's own part is over.
    let called = Sha256::digest(b"Calling EFI Application from Boot Option");
    let separator = Sha256::digest([0; 4]);
    // The stub measures its load options: UTF-16 with its end, and OVMF's name of the initramfs.
    let options: Vec<u8> = format!("{command_line} initrd=initrd\0")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let options = Sha256::digest(options);
    Ok(Registers {
        pcr4: register(&[booted, called.into(), separator.into()]),
        pcr9: register(&[options.into(), Sha256::digest(initramfs).into()]),
    })
}

/// A register that started at zero and was extended by these, in this order.
pub fn register(digests: &[[u8; 32]]) -> String {
    let value = digests.iter().fold([0; 32], |value: [u8; 32], digest| {
        Sha256::new().chain_update(value).chain_update(digest).finalize().into()
    });
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernel as QEMU hands it to the firmware: the boot loader's fields of its header are filled.
fn as_qemu_loads(kernel: &[u8], initramfs: &[u8]) -> Result<Vec<u8>> {
    let mut kernel = kernel.to_vec();
    ensure!(kernel.get(0x202..0x206) == Some(b"HdrS"), "this is no kernel for x86");
    let above = bytes::<1>(&kernel, XLOADFLAGS)?.first().is_some_and(|f| f & LOADED_ABOVE_4G != 0);
    ensure!(above, "this kernel wants its initramfs elsewhere than recent ones do");
    let size = u32::try_from(initramfs.len()).context("initramfs")?;
    let top = (MEMORY_MIB << 20) - ACPI_BYTES - 1;
    let at =
        top.checked_sub(size).context("the initramfs is larger than the memory")? & !(PAGE - 1);
    let flags = bytes::<1>(&kernel, LOADFLAGS)?.map(|flags| flags | CAN_USE_HEAP);
    let heap_end = u16::try_from(COMMAND_LINE_AT - REAL_MODE_AT - HEAP_MARGIN)?;
    write(&mut kernel, TYPE_OF_LOADER, &[LOADER_QEMU])?;
    write(&mut kernel, LOADFLAGS, &flags)?;
    write(&mut kernel, HEAP_END, &heap_end.to_le_bytes())?;
    write(&mut kernel, COMMAND_LINE, &COMMAND_LINE_AT.to_le_bytes())?;
    write(&mut kernel, RAMDISK, &at.to_le_bytes())?;
    write(&mut kernel, RAMDISK + 4, &size.to_le_bytes())?;
    Ok(kernel)
}

/// SHA-256 of a PE32+ program without its checksum and its signature, as firmware measures programs.
fn authenticode(program: &[u8]) -> Result<[u8; 32]> {
    let header = usize::try_from(u32::from_le_bytes(bytes(program, 0x3c)?))?;
    let optional = header + 24;
    ensure!(bytes::<2>(program, optional)? == [0x0b, 0x02], "this is no PE32+ program");
    let (checksum, entry) = (optional + 64, optional + 144);
    let signature = usize::try_from(u32::from_le_bytes(bytes(program, entry)?))?;
    let end = if signature == 0 { program.len() } else { signature };
    let parts = [0..checksum, checksum + 4..entry, entry + 8..end];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(program.get(part).context("this program is cut off")?);
    }
    Ok(hash.finalize().into())
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Result<[u8; N]> {
    let found = from.get(at..at + N).context("this program is cut off")?;
    Ok(found.try_into()?)
}

fn write(to: &mut [u8], at: usize, bytes: &[u8]) -> Result<()> {
    let place = to.get_mut(at..at + bytes.len()).context("this kernel is cut off")?;
    place.copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_a_chain_of_hashes() {
        // As a machine whose firmware measured nothing but the separator shows it.
        let separator = Sha256::digest([0; 4]).into();
        assert_eq!(
            register(&[separator]),
            "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969"
        );
    }

    /// The least that is both: a kernel's header, and a signed program.
    fn kernel() -> Vec<u8> {
        let mut kernel = vec![0; 0x800];
        kernel[0x3c..0x40].copy_from_slice(&0x300_u32.to_le_bytes());
        kernel[0x318..0x31a].copy_from_slice(&[0x0b, 0x02]);
        kernel[0x318 + 144..0x318 + 148].copy_from_slice(&0x700_u32.to_le_bytes());
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[XLOADFLAGS] = LOADED_ABOVE_4G;
        kernel
    }

    #[test]
    fn each_part_of_the_image_changes_what_measures_it() {
        let predict = |kernel: &[u8], initramfs: &[u8], line| predict(kernel, initramfs, line);
        let base = predict(&kernel(), b"init", "quiet").unwrap();
        let other = predict(&kernel(), b"init", "quiet debug").unwrap();
        assert!(other.pcr4 == base.pcr4 && other.pcr9 != base.pcr9);
        let other = predict(&kernel(), b"inix", "quiet").unwrap();
        assert!(other.pcr4 == base.pcr4 && other.pcr9 != base.pcr9);
        // Its size stands in the kernel's header.
        let other = predict(&kernel(), b"inits", "quiet").unwrap();
        assert!(other.pcr4 != base.pcr4 && other.pcr9 != base.pcr9);
        let mut code = kernel();
        code[0x600] = 1;
        let other = predict(&code, b"init", "quiet").unwrap();
        assert!(other.pcr4 != base.pcr4 && other.pcr9 == base.pcr9);
        // Checksum and signature are no part of it.
        let mut signature = kernel();
        signature[0x318 + 64] = 1;
        signature[0x780] = 1;
        assert_eq!(predict(&signature, b"init", "quiet").unwrap(), base);
    }

    #[test]
    fn what_is_no_kernel_is_an_error() {
        for cut in [0, 0x100, 0x204, 0x220, 0x300, 0x3a0, 0x6ff] {
            assert!(predict(&kernel()[..cut], b"init", "quiet").is_err(), "{cut}");
        }
        assert!(predict(&vec![0; 0x800], b"init", "quiet").is_err());
    }
}
