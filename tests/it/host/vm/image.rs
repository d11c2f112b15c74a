//! The disk of the virtual machine: Debian from the mirror that apt uses here, made once and kept below `target/`.

use crate::record::skip;
use gangplank_model::release::digest;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is on the machine beyond the smallest Debian. `busybox-static` runs without any library.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,openssh-server,sudo,iproute2,procps,\
                        adduser,busybox-static,kmod,udev,initramfs-tools,linux-image-cloud-amd64";
/// Size of its file system. The file has holes, so it takes a fifth of that here.
const DISK: &str = "2G";
/// Where the programs of the login with `BusyBox` alone are.
pub const APPLETS: &str = "/opt/busybox/bin";

/// Files of the machine: path and text.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "vm\n"),
    ("etc/hosts", "127.0.0.1 localhost vm\n"),
    ("etc/fstab", "/dev/vda / ext4 defaults,errors=remount-ro 0 1\n"),
    ("etc/systemd/network/20-wired.network", "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n"),
    (
        "etc/ssh/sshd_config.d/vm.conf",
        // The tests open more connections at once than sshd takes from strangers. A PATH of one login comes from its key.
        "PasswordAuthentication no\nUseDNS no\nMaxStartups 100\nPermitUserEnvironment PATH\n",
    ),
    // It names the mirror.
    ("etc/apt/sources.list", ""),
];

/// Commands that make the machine what it is, run inside it. Nothing may set its clock but a test.
const COMMANDS: &[&str] = &[
    "systemctl -q enable systemd-networkd ssh",
    "systemctl -q mask systemd-timesyncd systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer",
    "mkdir -p /opt/busybox/bin && /bin/busybox --install -s /opt/busybox/bin && echo /opt/busybox/bin/ash >> /etc/shells",
    "rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*",
];

/// A directory with `disk`, `kernel`, `initrd`, the key of root, and the machine's host key.
pub struct Image(PathBuf);

impl Image {
    /// The image that was made before, or a new one; nothing where none can be made.
    pub fn get() -> Option<Self> {
        let suite = suite()?;
        // What this file says is the recipe.
        let recipe = digest::of(format!("{suite}\n{}", include_str!("image.rs")).as_bytes());
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let image = Self(tmp.join(format!("vm-{}", &recipe[..16])));
        if !image.file("disk").exists() {
            remove_older(tmp);
            let aside = tmp.join(format!("vm-new-{}", std::process::id()));
            let made = make(&aside, &suite);
            remove(&aside.join("tree"));
            if !made {
                remove(&aside);
                return None;
            }
            // Another run may have made it meanwhile.
            if fs::rename(&aside, &image.0).is_err() {
                remove(&aside);
            }
        }
        Some(image)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The Debian of this machine, so that programs built here run there as well.
fn suite() -> Option<String> {
    let missing = ["debootstrap", "mke2fs", "qemu-system-x86_64", "setpriv", "unshare", "ssh-keygen"]
        .into_iter()
        .find(|name| !runs("sh", &["-c", "command -v \"$0\"", name]));
    if let Some(missing) = missing {
        skip(&format!("a virtual machine: {missing} is not installed (debootstrap, qemu-system-x86, e2fsprogs)"));
        return None;
    }
    if !runs("sh", &["-c", "[ $(id -u) = 0 ]"]) || std::env::consts::ARCH != "x86_64" {
        skip("a virtual machine: only root of an x86-64 machine can make one");
        return None;
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    if field("ID=") != "debian" || field("VERSION_CODENAME=").is_empty() {
        skip("a virtual machine: it is a Debian, and this machine is none");
        return None;
    }
    Some(field("VERSION_CODENAME=").to_owned())
}

/// The mirror that apt uses here.
fn mirror(suite: &str) -> Option<String> {
    let format = "$(CODENAME) $(COMPONENT) $(IDENTIFIER) $(REPO_URI)";
    let said = Command::new("apt-get").args(["indextargets", "--format", format]).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines().find_map(|line| line.strip_prefix(&format!("{suite} main Packages ")).map(str::to_owned))
}

fn make(dir: &Path, suite: &str) -> bool {
    let tree = dir.join("tree");
    fs::create_dir_all(&tree).unwrap();
    let Some(mirror) = mirror(suite) else {
        skip(&format!("a virtual machine: apt knows no mirror of {suite}"));
        return false;
    };
    eprintln!("making the image of a virtual machine, a minute or two");
    // It ends with this process, and its mounts with it.
    let contained = ["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"];
    let mut debootstrap = Command::new("setpriv");
    debootstrap.args(contained).args(["debootstrap", "--variant=minbase"]).arg(format!("--include={PACKAGES}"));
    let said = debootstrap.arg(suite).arg(&tree).arg(&mirror).stdin(Stdio::null()).output().unwrap();
    if !said.status.success() {
        let words = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        let words = words.replace(&mirror, "the mirror");
        let last: Vec<_> = words.lines().rev().take(3).collect();
        skip(&format!("a virtual machine: debootstrap failed: {last:?}"));
        return false;
    }
    for (path, text) in FILES {
        fs::write(tree.join(path), text).unwrap();
    }
    let _ = fs::remove_file(tree.join("etc/resolv.conf"));
    symlink("/run/systemd/resolve/resolv.conf", tree.join("etc/resolv.conf")).unwrap();
    for command in COMMANDS {
        must("chroot", &[&text(&tree), "sh", "-ec", command]);
    }
    let key = dir.join("key");
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &text(&key)]);
    fs::create_dir_all(tree.join("root/.ssh")).unwrap();
    fs::copy(dir.join("key.pub"), tree.join("root/.ssh/authorized_keys")).unwrap();
    must("chmod", &["700", &text(&tree.join("root/.ssh"))]);
    fs::copy(tree.join("etc/ssh/ssh_host_ed25519_key.pub"), dir.join("hostkey.pub")).unwrap();
    // qemu loads these itself.
    must(
        "sh",
        &[
            "-ec",
            "mv \"$0\"/boot/vmlinuz-* \"$1\"/kernel; mv \"$0\"/boot/initrd.img-* \"$1\"/initrd",
            &text(&tree),
            &text(dir),
        ],
    );
    must("mke2fs", &["-q", "-t", "ext4", "-d", &text(&tree), &text(&dir.join("disk.new")), DISK]);
    fs::rename(dir.join("disk.new"), dir.join("disk")).unwrap();
    true
}

/// Images of other recipes, and what runs that were killed have left.
fn remove_older(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix("vm-") else { continue };
        let in_use = rest.strip_prefix("new-").is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !in_use {
            remove(&entry.path());
        }
    }
}

/// Never across a mount.
fn remove(dir: &Path) {
    must("rm", &["-rf", "--one-file-system", "--", &text(dir)]);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
}

#[track_caller]
pub fn must(program: &str, args: &[&str]) {
    let said = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&said.stderr));
}
