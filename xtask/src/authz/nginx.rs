//! nginx as a process of this recipe: its configuration, logs and temporary files in one folder.

use super::{Ports, await_up};
use crate::run::works;
use crate::service::{tail, terminate};
use anyhow::{Context as _, Result, ensure};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The files that docs/authz.md shows.
const INCLUDED: [&str; 2] = ["chancery-ask.conf", "chancery-guard.conf"];
const SITE: &str = "site.conf";

/// Makes sure that there is an nginx; why not, if there is none.
pub fn install() -> Result<(), String> {
    let works_here = || works(Command::new("nginx").arg("-v"));
    if works_here() {
        return Ok(());
    }
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "--no-install-recommends", "nginx-light"]);
    // The package must not start a service of its own.
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    if works(&mut apt) && works_here() {
        return Ok(());
    }
    Err("nginx is not installed; `apt-get install nginx-light` installs it".into())
}

/// A running nginx.
pub struct Nginx {
    process: Child,
    log: PathBuf,
}

impl Nginx {
    /// Starts it with the site that the documentation shows, on these ports.
    pub fn start(root: &Path, folder: &Path, ports: &Ports) -> Result<Self> {
        let folder = folder.join("nginx");
        std::fs::create_dir(&folder).context("cannot create nginx's folder")?;
        let from = root.join("interop/nginx");
        for name in INCLUDED {
            std::fs::copy(from.join(name), folder.join(name))
                .with_context(|| format!("cannot copy {name}"))?;
        }
        let site = std::fs::read_to_string(from.join(SITE)).context("cannot read site.conf")?;
        std::fs::write(folder.join(SITE), with_ports(&site, ports)?)?;
        let log = folder.join("error.log");
        std::fs::write(folder.join("nginx.conf"), main_file(&folder, &log))?;

        let nginx = || {
            let mut command = Command::new("nginx");
            command.arg("-p").arg(&folder).arg("-e").arg(&log).arg("-c");
            command.arg(folder.join("nginx.conf"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let accepted = nginx().arg("-t").status().context("cannot start nginx")?.success();
        let told = || tail(&std::fs::read_to_string(&log).unwrap_or_default(), 20);
        ensure!(accepted, "nginx refuses the configuration of interop/nginx:\n{}", told());
        let process = nginx().spawn().context("cannot start nginx")?;
        let nginx = Self { process, log };
        await_up("nginx", || TcpStream::connect(ports.nginx).is_ok())
            .with_context(|| nginx.log_tail())?;
        Ok(nginx)
    }

    /// The last lines that it logged.
    pub fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 20)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        terminate(&mut self.process);
    }
}

/// The site with free ports in place of those that the documentation shows.
fn with_ports(site: &str, ports: &Ports) -> Result<String> {
    let mut site = site.to_owned();
    for (shown, free) in [
        ("127.0.0.1:8430", ports.authz),
        ("127.0.0.1:8080", ports.nginx),
        ("127.0.0.1:9000", ports.application),
    ] {
        ensure!(site.matches(shown).count() == 1, "site.conf must name {shown} once");
        site = site.replace(shown, &free.to_string());
    }
    Ok(site)
}

/// One process in the foreground that writes nothing outside its folder.
fn main_file(folder: &Path, log: &Path) -> String {
    let (folder, log) = (folder.display(), log.display());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {log} info;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n    access_log off;\n    keepalive_requests 1000000;\n{temporary}    \
         include {SITE};\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_of_the_documentation_gets_free_ports() {
        let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let ports = Ports {
            authz: address(1),
            admin: address(2),
            nginx: address(3),
            application: address(4),
        };
        let site = crate::repository().join("interop/nginx").join(SITE);
        let site = with_ports(&std::fs::read_to_string(site).unwrap(), &ports).unwrap();
        for address in ["127.0.0.1:1;", "127.0.0.1:3;", "127.0.0.1:4;"] {
            assert!(site.contains(address), "{site}");
        }
        assert!(with_ports("", &ports).is_err());
    }
}
