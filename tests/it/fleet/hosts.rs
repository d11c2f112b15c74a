//! The hosts of a test: started, broken and stopped with it.

use super::machine;
use crate::project::{end_all_kept, free_port};
use crate::record::skip;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Some sshds on loopback.
pub struct Fleet {
    dir: PathBuf,
    hosts: usize,
    guard: Child,
    _own: tempfile::TempDir,
}

impl Fleet {
    /// Starts `n` hosts; `None` without sshd. CI must have it, so that these tests are never skipped there.
    pub fn start(n: usize) -> Option<Self> {
        Self::with(n, |_| String::new())
    }

    /// The same, with more lines in each sshd's configuration.
    pub fn with(n: usize, more: impl Fn(usize) -> String) -> Option<Self> {
        Self::launch(n, "", more, in_background)
    }

    /// Hosts on which each command has these variables, with `@dir@` for the directory of the fleet.
    pub fn with_vars(n: usize, vars: &str) -> Option<Self> {
        Self::launch(n, vars, |_| String::new(), in_background)
    }

    /// Hosts that are machines of their own: each with a systemd of its user, its journal, its `/run`, its home and its
    /// address. Only root can make them; elsewhere there are none.
    pub fn with_systemd(n: usize) -> Option<Self> {
        let groups = machine::groups()?;
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let fleet = Self::launch(
            n,
            &format!("XDG_RUNTIME_DIR=@host@/run PATH=@dir@/own:{path}"),
            |_| String::new(),
            |at, sshd| machine::boot(at, &format!("HOME={at}/home XDG_RUNTIME_DIR={at}/run"), &groups, sshd),
        )?;
        (0..n).for_each(|host| machine::wait(&fleet.dir.join(format!("h{host}"))));
        Some(fleet)
    }

    /// A host with a real sudo, users of its own, and a manager that starts nothing. Only root can make one.
    pub fn with_sudo() -> Option<Self> {
        if !machine::has_sudo() {
            return None;
        }
        let fleet = Self::launch(1, "", |_| String::new(), machine::boot_with_sudo)?;
        fs::set_permissions(&fleet.dir, PermissionsExt::from_mode(0o755)).unwrap();
        Some(fleet)
    }

    /// `vars` are set for every command, `more` is configuration, `start` makes the command that starts an sshd.
    fn launch(
        n: usize,
        vars: &str,
        more: impl Fn(usize) -> String,
        start: impl Fn(&str, &str) -> String,
    ) -> Option<Self> {
        let sshd = sshd()?;
        let own = crate::record::tempdir();
        let dir = own.path().to_owned();
        // Only for its separation of privileges, and only as root.
        let _ = fs::create_dir_all("/run/sshd");
        keygen(&dir.join("client"));
        let (mut config, mut known, mut lines) = (String::new(), String::new(), String::new());
        for host in 0..n {
            let own = dir.join(format!("h{host}"));
            fs::create_dir_all(own.join("srv")).unwrap();
            fs::create_dir_all(own.join("home")).unwrap();
            keygen(&own.join("hostkey"));
            let port = free_port();
            let key = fs::read_to_string(own.join("hostkey.pub")).unwrap();
            let key: Vec<_> = key.split(' ').take(2).collect();
            writeln!(known, "fleet{host} {}", key.join(" ")).unwrap();
            let address = address(host);
            writeln!(
                config,
                "Host fleet{host}\n  HostName 127.0.0.1\n  HostKeyAlias fleet{host}\n  Port {port}\n\
                 Host {address}\n  HostKeyAlias fleet{host}\n  Port {port}"
            )
            .unwrap();
            let client = dir.join("client.pub").display().to_string();
            let at = own.display();
            let sshd_config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nListenAddress {address}\nHostKey {at}/hostkey\nPidFile {at}/pid\nAuthorizedKeysFile {client}\n\
                 AuthenticationMethods publickey\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
                 StrictModes no\nPermitRootLogin yes\nPrintMotd no\nMaxStartups 100:30:200\nSetEnv HOME={at}/home {}\n{}",
                vars.replace("@dir@", &dir.display().to_string()).replace("@host@", &at.to_string()),
                more(host)
            );
            fs::write(own.join("sshd_config"), sshd_config).unwrap();
            let sshd = format!("{sshd} -D -f {at}/sshd_config -E {at}/log");
            writeln!(lines, "{}", start(&at.to_string(), &sshd)).unwrap();
        }
        write!(
            config,
            "Host fleet* 127.0.1.*\n  IdentityFile {0}/client\n  IdentitiesOnly yes\n  UserKnownHostsFile {0}/known_hosts\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  KexAlgorithms curve25519-sha256\n",
            dir.display()
        )
        .unwrap();
        fs::write(dir.join("known_hosts"), known).unwrap();
        fs::write(dir.join("ssh_config"), config).unwrap();
        program(
            &dir.join("bin/ssh"),
            &format!("#!/bin/sh\nexec {} -F {}/ssh_config \"$@\"\n", which("ssh"), dir.display()),
        );
        // However this process ends, its end of the pipe closes, and the sshds go.
        let guard = format!(
            "pids=; groups=; {lines}cat > /dev/null; kill $pids; wait
for group in $groups; do find $group -depth -type d -exec rmdir {{}} \\;; done"
        );
        let guard =
            Command::new("sh").args(["-c", &guard]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let fleet = Self { dir, hosts: n, guard, _own: own };
        fleet.wait();
        Some(fleet)
    }

    /// Waits until every sshd listens.
    fn wait(&self) {
        for host in 0..self.hosts {
            let started = Instant::now();
            while !self.dir.join(format!("h{host}/pid")).exists() {
                let log = || fs::read_to_string(self.dir.join(format!("h{host}/log"))).unwrap_or_default();
                assert!(started.elapsed() < Duration::from_secs(20), "sshd {host} did not start: {}", log());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// `PATH` with an ssh that knows these hosts as `fleet0`, `fleet1`, ...
    pub fn path(&self) -> String {
        format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap())
    }

    /// The directory that is this host's own.
    pub fn srv(&self, host: usize) -> PathBuf {
        self.dir.join(format!("h{host}/srv"))
    }

    /// The home of its user: not that of this machine, whose profile the shell of each command would read.
    pub fn home(&self, host: usize) -> PathBuf {
        self.dir.join(format!("h{host}/home"))
    }

    /// What a host answers to a command, whatever its exit code.
    pub fn ask(&self, host: usize, command: &str) -> String {
        let asked = Command::new(self.file("bin/ssh")).arg(format!("fleet{host}")).arg(command).output().unwrap();
        String::from_utf8(asked.stdout).unwrap().trim().to_owned()
    }

    /// URL of a target on a host.
    pub fn target(&self, host: usize, dir: &str) -> String {
        format!("ssh://fleet{host}{}/{dir}", self.srv(host).display())
    }

    /// The same, with the host's address in place of its name.
    pub fn target_by_address(&self, host: usize, dir: &str) -> String {
        format!("ssh://{}{}/{dir}", address(host), self.srv(host).display())
    }

    /// From now on a host is reached by another port: that of a proxy before it. Gives its own.
    pub fn reach_by(&self, host: usize, port: u16) -> u16 {
        let path = self.file("ssh_config");
        let config = fs::read_to_string(&path).unwrap();
        let before = format!("HostKeyAlias fleet{host}\n  Port ");
        let (head, rest) = config.split_once(&before).unwrap();
        let (own, rest) = rest.split_once('\n').unwrap();
        fs::write(path, format!("{head}{before}{port}\n{rest}")).unwrap();
        own.parse().unwrap()
    }

    /// A file of the harness: `known_hosts`, `ssh_config`, ...
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Fleet {
    /// Services outlive the sshd through which they were started.
    fn drop(&mut self) {
        (0..self.hosts).for_each(|host| end_all_kept(&self.srv(host)));
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A line of shell that starts an sshd and notes its process.
fn in_background(_at: &str, sshd: &str) -> String {
    format!("{sshd} & pids=\"$pids $!\"")
}

fn sshd() -> Option<&'static str> {
    let found = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "install openssh-server");
        skip("hosts over ssh: there is no sshd (openssh-server)");
    }
    found
}

/// Each host has its own, so that the services of all can have one port.
pub fn address(host: usize) -> String {
    format!("127.0.1.{}", 10 + host)
}

fn keygen(path: &Path) {
    let path = path.display().to_string();
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).status().unwrap();
    assert!(made.success());
}

fn which(program: &str) -> String {
    let dirs = std::env::var("PATH").unwrap();
    let found = dirs.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {program}")).display().to_string()
}

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}
