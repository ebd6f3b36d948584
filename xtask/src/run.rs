//! Running other programs: shown before they run, and an error that repeats the command.

use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Cargo in `root`: the one that runs this program, so that a toolchain override holds throughout.
pub fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    command
}

/// Runs `command` with the terminal's output; anything but exit status 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` and returns its standard output; its errors stay on the terminal.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed text that is not UTF-8", shown(command)))
}

/// Whether `command` starts and succeeds, quietly: the test for an optional tool.
pub fn works(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The command as a reader would type it: program name without its folder, then arguments.
pub fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![name.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_repeats_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c exit 3") && error.contains('3'), "{error}");
        assert!(output(&mut Command::new("false")).is_err());
    }

    #[test]
    fn a_missing_program_is_an_error_and_does_not_work() {
        let error = run(&mut Command::new("/nonexistent/tool")).unwrap_err().to_string();
        assert_eq!(error, "cannot start `tool`");
        assert!(!works(&mut Command::new("/nonexistent/tool")));
        assert!(works(&mut Command::new("true")));
    }

    #[test]
    fn output_is_standard_output() {
        let text = output(Command::new("sh").args(["-c", "echo out"])).unwrap();
        assert_eq!(text, "out\n");
    }
}
