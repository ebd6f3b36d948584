//! What swtpm's log says of a boot: every extension of a register, in order (TPM 2.0 Library, part 3,
//! `TPM2_PCR_Extend`).

use crate::image::measure::{Registers, register};
use anyhow::{Context as _, Result};

const PCR_EXTEND: u32 = 0x182;
const SHA256: u16 = 0x0b;
/// Algorithms of other banks, and the bytes of their digests.
const DIGEST_BYTES: [(u16, usize); 4] = [(0x04, 20), (SHA256, 32), (0x0c, 48), (0x0d, 64)];

/// The registers of the kernel, its command line and its initramfs; `None` while the boot has not
/// come so far. A kernel that leaves the firmware says so in PCR 5, twice.
pub fn registers(log: &str) -> Result<Option<Registers>> {
    let mut extended = Vec::new();
    for command in commands(log) {
        extended.extend(extension(&command)?);
    }
    let of = |pcr: u32| -> Vec<[u8; 32]> {
        extended.iter().filter(|(number, _)| *number == pcr).map(|(_, digest)| *digest).collect()
    };
    let left = of(5).len() >= 3;
    Ok(left.then(|| Registers { pcr4: register(&of(4)), pcr9: register(&of(9)) }))
}

/// The packets of the log: lines of hexadecimal bytes, until a line of another kind.
fn commands(log: &str) -> Vec<Vec<u8>> {
    let mut packets = vec![Vec::new()];
    for line in log.lines() {
        let bytes: Option<Vec<u8>> = line
            .split_whitespace()
            .map(|word| u8::from_str_radix(word, 16).ok().filter(|_| word.len() == 2))
            .collect();
        match (bytes, packets.last_mut()) {
            (Some(bytes), Some(packet)) if !bytes.is_empty() => packet.extend(bytes),
            _ => packets.push(Vec::new()),
        }
    }
    packets
}

/// The register and the SHA-256 digest of a command that extends one.
fn extension(command: &[u8]) -> Result<Option<(u32, [u8; 32])>> {
    let size = command.get(2..6).and_then(number).unwrap_or_default();
    if command.get(6..10).and_then(number) != Some(PCR_EXTEND)
        || usize::try_from(size)? != command.len()
    {
        return Ok(None);
    }
    let cut = "a command is cut off";
    let pcr = command.get(10..14).and_then(number).context(cut)?;
    let session = usize::try_from(command.get(14..18).and_then(number).context(cut)?)?;
    let mut digests = command.get(18 + session + 4..).context(cut)?;
    while let Some((algorithm, rest)) = digests.split_at_checked(2) {
        let algorithm = u16::from_be_bytes(algorithm.try_into()?);
        let known = DIGEST_BYTES.iter().find(|(known, _)| *known == algorithm);
        let (_, bytes) = known.context("a digest of an unknown kind")?;
        let (digest, rest) = rest.split_at_checked(*bytes).context(cut)?;
        if algorithm == SHA256 {
            return Ok(Some((pcr, digest.try_into()?)));
        }
        digests = rest;
    }
    Ok(None)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with one command, as swtpm prints it.
    fn logged(pcr: u8, digest: u8) -> String {
        let mut command = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, pcr, 0, 0, 0, 9];
        command.extend([0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b]);
        command.extend([digest; 32]);
        let mut text = " Ctrl Cmd: length 4\n SWTPM_IO_Read: length 65\n".to_owned();
        for line in command.chunks(16) {
            let words: Vec<String> = line.iter().map(|byte| format!("{byte:02X}")).collect();
            text.push_str(&format!(" {} \n", words.join(" ")));
        }
        text + " SWTPM_IO_Write: length 10\n 80 01 00 00 00 0A 00 00 00 00 \n"
    }

    #[test]
    fn registers_are_read_once_the_kernel_has_left_the_firmware() {
        let mut log = logged(4, 1) + &logged(9, 2) + &logged(9, 3) + &logged(5, 4) + &logged(5, 4);
        assert_eq!(registers(&log).unwrap(), None);
        log.push_str(&logged(5, 5));
        let found = registers(&log).unwrap().unwrap();
        assert_eq!(found.pcr4, register(&[[1; 32]]));
        assert_eq!(found.pcr9, register(&[[2; 32], [3; 32]]));
    }

    #[test]
    fn a_log_that_is_still_written_is_no_error() {
        let log = logged(4, 1);
        for cut in 0..log.len() {
            assert_eq!(registers(&log[..cut]).unwrap(), None, "{cut}");
        }
    }
}
