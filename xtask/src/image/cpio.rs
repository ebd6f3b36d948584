//! The archive that the kernel unpacks: `newc`, as its documentation describes it
//! (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed.

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const DEVICE: u32 = 0o020_600;
const PROGRAM: u32 = 0o100_755;
/// Names and contents start at multiples of this.
const ALIGNED: usize = 4;

/// The whole archive: a console for the first process's words, and that process.
pub fn archive(init: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Vec::with_capacity(init.len() + 1_024);
    entry(&mut archive, 1, "dev", DIRECTORY, (0, 0), &[])?;
    entry(&mut archive, 2, "dev/console", DEVICE, (5, 1), &[])?;
    entry(&mut archive, 3, "init", PROGRAM, (0, 0), init)?;
    entry(&mut archive, 0, "TRAILER!!!", 0, (0, 0), &[])?;
    Ok(archive)
}

/// One file: thirteen numbers of eight hexadecimal digits behind the magic, name, contents.
fn entry(
    archive: &mut Vec<u8>,
    inode: u32,
    name: &str,
    mode: u32,
    device: (u32, u32),
    contents: &[u8],
) -> Result<()> {
    let size = u32::try_from(contents.len()).context("the archive's format ends at 4 GiB")?;
    let name_size = u32::try_from(name.len())?.saturating_add(1);
    let (owner, group, links, time) = (0, 0, 1, 0);
    let fields =
        [inode, mode, owner, group, links, time, size, 0, 0, device.0, device.1, name_size, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08X}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(contents);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(ALIGNED), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_archive_has_only_what_it_names_and_no_times() {
        let archive = archive(b"#!init").unwrap();
        assert_eq!(archive.len() % ALIGNED, 0);
        assert_eq!(archive.windows(6).filter(|w| w == b"070701").count(), 4);
        let text = String::from_utf8_lossy(&archive);
        assert!(text.starts_with("07070100000001000041ED000000000000000000000001000000000000"));
        assert!(text.contains("init\0\0\0#!init\0\0") || text.contains("init\0\0#!init\0\0"));
    }

    /// Where cpio is installed, another reader agrees.
    #[test]
    fn cpio_lists_the_archive() {
        let mut command = Command::new("cpio");
        command.args(["--list", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut cpio) = command.spawn() else { return };
        cpio.stdin.take().unwrap().write_all(&archive(b"#!init").unwrap()).unwrap();
        let said = cpio.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "dev\ndev/console\ninit\n");
    }
}
