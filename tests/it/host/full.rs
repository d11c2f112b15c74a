//! Disks with no room left, real ones: an ext4 file system in a file. Root alone can mount it.

use crate::project::Project;
use crate::record::skip;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted disk, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts a disk of so many KiB and inodes at `at`.
    fn mount(image: &Path, at: &Path, kib: u64, inodes: u32) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(kib << 10).unwrap();
        fs::create_dir_all(at).unwrap();
        let ran = |program: &str, args: &[&str], paths: &[&Path]| {
            let mut command = Command::new(program);
            command.args(args).args(paths).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        // No blocks are reserved for root, so that the disk is as full for root as for everybody.
        let inodes = inodes.to_string();
        let made = ran("mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", &inodes], &[image]);
        if !made || !ran("mount", &["-o", "loop"], &[image, at]) {
            skip("full disks: only root of a machine with mke2fs and loop devices has them");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.0.join("fill")).unwrap();
        while file.write(&vec![b'x'; 64 << 10]).is_ok() && file.sync_all().is_ok() {}
        while file.write(&[b'x'; 512]).is_ok() && file.sync_all().is_ok() {}
    }

    /// Leaves no inode.
    fn fill_inodes(&self) {
        let dir = self.0.join("many");
        fs::create_dir_all(&dir).unwrap();
        let mut n = fs::read_dir(&dir).unwrap().count()..;
        while fs::File::create_new(dir.join(n.next().unwrap().to_string())).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Three releases on a disk of its own, the last one live.
fn three(p: &Project, kib: u64, inodes: u32) -> Option<(Disk, [String; 3])> {
    let disk = Disk::mount(&p.path("target/disk"), &p.path("srv"), kib, inodes)?;
    let releases = ["1", "2", "3"].map(|text| {
        let id = p.release(text);
        p.run("deploy dev").ok();
        id
    });
    Some((disk, releases))
}

#[test]
fn rollback_and_prune_on_a_full_disk_work() {
    let mut p = Project::new();
    p.change("env dev\n", "env dev\nkeep 5\n");
    fs::create_dir_all(p.path("target")).unwrap();
    let Some((disk, [one, two, three])) = three(&p, 4096, 256) else { return };
    disk.fill();
    p.run("rollback dev").ok();
    assert_eq!(p.current("srv/dev").as_ref(), Some(&two));
    disk.fill();
    p.run("status dev").ok().stdout_has(&two);
    p.run(&format!("rollback dev {one}")).ok();
    disk.fill();
    p.run(&format!("rollback dev {two}")).ok();
    disk.fill();
    p.run("prune dev --keep 1").ok();
    assert!(!p.path(&format!("srv/dev/releases/{three}")).exists());
    let history = p.run("history dev").ok().stdout;
    assert_eq!(history.matches("rollback").count(), 3, "{history}");
    // Room was made, and the next time there is some as well.
    fs::remove_file(p.path("srv/fill")).unwrap();
    let four = p.release("4");
    p.run("deploy dev").ok();
    assert_eq!(fs::read_dir(p.path("srv/dev/.reserve")).unwrap().count(), 8);
    disk.fill();
    p.run("rollback dev").ok();
    p.run(&format!("deploy dev {four}")).ok();
}

#[test]
fn refused_deploys_on_a_full_disk_leave_room_for_a_rollback() {
    let p = Project::new();
    fs::create_dir_all(p.path("target")).unwrap();
    let Some((disk, [one, two, _])) = three(&p, 4096, 256) else { return };
    for _ in 0..12 {
        disk.fill();
        p.run(&format!("deploy dev {one}")).code(8);
    }
    disk.fill();
    p.run("rollback dev").ok();
    assert_eq!(p.current("srv/dev"), Some(two));
}

#[test]
fn rollback_of_a_service_on_a_full_disk_works() {
    let p = Project::with_service();
    fs::create_dir_all(p.path("target")).unwrap();
    let Some((disk, [_, two, _])) = three(&p, 32 << 10, 256) else { return };
    disk.fill();
    p.run("rollback dev").ok();
    assert_eq!(p.current("srv/dev"), Some(two));
    assert_eq!(p.get("dev").unwrap().trim(), "2");
    crate::project::end_kept(&p.path("srv/dev"));
}

#[test]
fn rollback_of_a_service_of_commands_on_a_full_disk_works() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\ncommand echo $WORD > /dev/null|:|:|:\nvar WORD=go\n");
    fs::create_dir_all(p.path("target")).unwrap();
    let Some((disk, [_, two, _])) = three(&p, 4096, 256) else { return };
    disk.fill();
    p.run("rollback dev").ok();
    assert_eq!(p.current("srv/dev"), Some(two));
    assert_eq!(p.read("srv/dev/service/vars"), "export WORD=go\n");
}

#[test]
fn rollback_without_inodes_works_or_says_so() {
    let mut p = Project::new();
    p.change("env dev\n", "env dev\nkeep 5\n");
    fs::create_dir_all(p.path("target")).unwrap();
    let Some((disk, [_, two, _])) = three(&p, 4096, 128) else { return };
    disk.fill_inodes();
    p.run("rollback dev").ok();
    assert_eq!(p.current("srv/dev").as_ref(), Some(&two));
    let history = p.read("srv/dev/history.jsonl");
    assert_eq!(history.matches("\"verb\":\"rollback\"").count(), 2, "switched and live, each once: {history}");
    fs::remove_dir_all(p.path("srv/dev/.reserve")).unwrap();
    disk.fill_inodes();
    p.run("rollback dev").fails(1, "No space left", "df -i");
    assert_eq!(p.current("srv/dev"), Some(two));
}

#[test]
fn rollback_on_a_full_disk_without_a_reserve_says_how_to_make_room() {
    let p = Project::new();
    fs::create_dir_all(p.path("target")).unwrap();
    let Some((disk, [one, _, three])) = three(&p, 4096, 256) else { return };
    fs::remove_dir_all(p.path("srv/dev/.reserve")).unwrap();
    disk.fill();
    p.run("rollback dev").fails(
        1,
        "take the lock",
        &format!("rm -r -- {}", p.path(&format!("srv/dev/releases/{one}")).display()),
    );
    assert_eq!(p.current("srv/dev"), Some(three));
}
