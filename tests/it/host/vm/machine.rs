//! A virtual machine of a test: started, rebooted, and cut off from its power.

use super::image::{Image, must};
use crate::project::free_port;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a boot may take: it takes 20 s on two idle cores without KVM.
const BOOT: Duration = Duration::from_secs(300);
/// Starts qemu, and ends it on a line of input, or with the test, however that ends: its end of the pipe closes. The disk
/// goes with the test.
const GUARD: &str = r#"trap "" HUP INT TERM; dir=$1; shift
"$@" < /dev/null > "$dir/qemu" 2>&1 & pid=$!
read -r line; read=$?
kill -KILL $pid; wait $pid 2> /dev/null
[ $read = 0 ] || rm -rf "$dir""#;

pub struct Machine {
    dir: PathBuf,
    image: Image,
    /// Of sshd, and of the services.
    ports: Vec<u16>,
    guard: Option<Child>,
    _own: tempfile::TempDir,
}

impl Machine {
    /// Starts a machine with ports for so many services; nothing where none can be made.
    pub fn start(services: usize) -> Option<Self> {
        let image = Image::get()?;
        let own = crate::record::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let dir = own.path().to_owned();
        must(
            "cp",
            &["--sparse=always", &image.file("disk").display().to_string(), &dir.join("disk").display().to_string()],
        );
        let ports = (0..=services).map(|_| free_port()).collect();
        let mut machine = Self { dir, image, ports, guard: None, _own: own };
        machine.write_ssh();
        machine.boot();
        Some(machine)
    }

    /// An `ssh` that has the key of the deploys, and no keys of hosts but those of a project.
    fn write_ssh(&self) {
        let config = format!(
            "Host 127.0.0.1\n  IdentityFile {}/deploy_key\n  IdentitiesOnly yes\n  UserKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
            self.dir.display()
        );
        fs::write(self.dir.join("ssh_config"), config).unwrap();
        let key = fs::read_to_string(self.image.file("hostkey.pub")).unwrap();
        fs::write(self.dir.join("known_hosts"), format!("vm {key}")).unwrap();
        let bin = self.dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {}/ssh_config \"$@\"\n", self.dir.display());
        fs::write(bin.join("ssh"), ssh).unwrap();
        fs::set_permissions(bin.join("ssh"), PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Switches it on, and waits until root can log in.
    pub fn boot(&mut self) {
        let started = Instant::now();
        let mut network = format!("user,id=n,hostfwd=tcp:127.0.0.1:{}-:22", self.ports[0]);
        for port in &self.ports[1..] {
            write!(network, ",hostfwd=tcp:127.0.0.1:{port}-:{port}").unwrap();
        }
        let at = self.dir.display();
        let file = |name: &str| self.image.file(name).display().to_string();
        let mut qemu = Command::new("sh");
        qemu.args(["-c", GUARD, "guard"]).arg(&self.dir).args(["qemu-system-x86_64", "-accel"]);
        // A /dev/kvm that opens does not yet run a guest.
        if kvm() {
            qemu.args(["kvm", "-cpu", "host"])
        } else {
            qemu.args(["tcg,thread=multi", "-cpu", "max"])
        };
        qemu.args(["-machine", "q35", "-smp", "2", "-m", "768", "-display", "none", "-no-user-config", "-nodefaults"]);
        qemu.args(["-kernel", &file("kernel"), "-initrd", &file("initrd")]);
        qemu.args(["-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0"]);
        // Nothing between the guest's idea of what is on its disk and the file: a power cut loses what was not flushed.
        qemu.args(["-drive", &format!("file={at}/disk,format=raw,if=virtio,cache=none")]);
        qemu.args(["-netdev", &network, "-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci"]);
        qemu.args(["-serial", &format!("file:{at}/console"), "-rtc", "base=utc"]);
        self.guard = Some(qemu.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        self.wait(started, "");
    }

    /// Waits for a boot that is not the one with this id.
    fn wait(&self, started: Instant, last: &str) {
        loop {
            let id = self.try_sh("cat /proc/sys/kernel/random/boot_id");
            if id.status.success() && String::from_utf8_lossy(&id.stdout).trim() != last {
                eprintln!("up after {:.1} s", started.elapsed().as_secs_f32());
                return;
            }
            let read = |name: &str| fs::read(self.dir.join(name)).unwrap_or_default();
            assert!(
                started.elapsed() < BOOT,
                "no login: {}\n{}\n{}",
                String::from_utf8_lossy(&id.stderr),
                String::from_utf8_lossy(&read("qemu")),
                String::from_utf8_lossy(&read("console"))
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// An orderly reboot.
    pub fn reboot(&self) {
        let (started, id) = (Instant::now(), self.sh("cat /proc/sys/kernel/random/boot_id"));
        self.try_sh("systemctl reboot");
        self.wait(started, &id);
    }

    /// Takes its power away: what it has not written to the disk by now is lost.
    pub fn cut_power(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        guard.stdin.take().unwrap().write_all(b"end\n").unwrap();
        guard.wait().unwrap();
    }

    /// What root's commands print. All of them have to succeed.
    #[track_caller]
    pub fn sh(&self, command: &str) -> String {
        let said = self.try_sh(&format!("set -e\n{command}"));
        let (stdout, stderr) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "as root `{command}`\n{stdout}\n{stderr}");
        stdout.trim_end().to_owned()
    }

    /// Writes a file as root.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let mut ssh = self.ssh(&format!("cat > {path}")).stdin(Stdio::piped()).spawn().unwrap();
        ssh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(ssh.wait().unwrap().success(), "{path}");
    }

    fn try_sh(&self, command: &str) -> Output {
        self.ssh(command).stdin(Stdio::null()).output().unwrap()
    }

    /// Root's own way in, which is none of the product's.
    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-i"]).arg(self.image.file("key")).args(["-p", &self.ports[0].to_string()]);
        let known = format!("UserKnownHostsFile={}", self.file("known_hosts").display());
        for option in
            [&known, "HostKeyAlias=vm", "IdentitiesOnly=yes", "BatchMode=yes", "ConnectTimeout=5", "LogLevel=ERROR"]
        {
            ssh.args(["-o", option]);
        }
        ssh.args(["root@127.0.0.1", command]);
        ssh
    }

    /// URL of a target.
    pub fn target(&self, login: &str, dir: &str) -> String {
        format!("ssh://{login}@127.0.0.1:{}{dir}", self.ports[0])
    }

    /// The port of sshd.
    pub fn ssh_port(&self) -> u16 {
        self.ports[0]
    }

    /// The port of a service, the same here and there.
    pub fn port(&self, service: usize) -> u16 {
        self.ports[1 + service]
    }

    /// `PATH` with an ssh that has the key of the deploys.
    pub fn path(&self) -> String {
        format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap())
    }

    /// A file of the harness.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn kvm() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|it| it == flag);
    (has("vmx") || has("svm")) && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}
