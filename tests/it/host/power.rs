//! The power of a host is cut at every phase that its disk can tell from another, and it boots again.

mod damage;
mod disk;

use crate::fleet::hosts::{Fleet, address};
use crate::project::{Project, end_all_kept, get};
use crate::sample::draw;
use disk::{Cut, Disk, Recording};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A command, and between which events of the disk it ran.
#[derive(Debug)]
struct Done {
    line: &'static str,
    from: usize,
    to: usize,
    /// What is live after it.
    live: String,
    /// What may be live while it runs.
    tried: String,
    /// How many records `live` the history has after it.
    lives: usize,
}

/// A host whose root is on a disk that records.
struct Host {
    p: Project,
    /// Where its disk is mounted.
    disk: PathBuf,
    /// The root of its target, as this test reads it.
    root: PathBuf,
    service: Service,
}

/// What runs a release there.
enum Service {
    None,
    /// The built-in pidfile service.
    Pidfile,
    /// Commands of the project, which note the variables that they were started with.
    Commands,
    /// The systemd of a user. A host of its own, a process in it, and the port of the app.
    Systemd(Fleet, String, u16),
}

impl Host {
    fn here(p: Project, service: Service) -> Self {
        let (disk, root) = (p.path("srv"), p.path("srv/dev"));
        fs::create_dir_all(&disk).unwrap();
        Self { p, disk, root, service }
    }

    fn without_service() -> Self {
        let mut p = Project::new();
        let more = "target file:srv/dev\nkeep 2\nshared data/db/\nhealthy test -d data/db -a ! -e www/broken\npatience 200|50|1\n";
        p.change("target file:srv/dev\n", more);
        Self::here(p, Service::None)
    }

    fn with_pidfile() -> Self {
        let mut p = Project::with_service();
        p.change("target file:srv/dev\n", "target file:srv/dev\nkeep 2\npatience 3000|50|1\n");
        Self::here(p, Service::Pidfile)
    }

    fn with_commands() -> Self {
        let mut p = Project::new();
        let more = "target file:srv/dev\nkeep 2\nvar WORD=one\ncommand test -n \"$WORD\"|true|true|\nhealthy test ! -e www/broken\npatience 200|50|1\n";
        p.change("target file:srv/dev\n", more);
        Self::here(p, Service::Commands)
    }

    fn with_systemd() -> Option<Self> {
        let fleet = Fleet::with_systemd(1)?;
        let (mut p, port) = crate::fleet::systemd::project(&fleet, 1, "restart");
        p.add("healthy test ! -e www/broken\n");
        p.write("www/index.html", "");
        let process = fs::read_to_string(fleet.file("h0/journal.pid")).unwrap().trim().to_owned();
        // Its units are on the disk as well.
        let units = fleet.home(0).join(".config/systemd/user");
        let _ = fs::remove_dir_all(&units);
        fs::create_dir_all(units.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(fleet.srv(0).join("units"), &units).unwrap();
        let disk = fleet.srv(0);
        let root = PathBuf::from(format!("/proc/{process}/root{}/app", disk.display()));
        Some(Self { p, disk, root, service: Service::Systemd(fleet, process, port) })
    }

    /// The process whose mounts are the host's.
    fn mounts(&self) -> Option<&str> {
        if let Service::Systemd(_, process, _) = &self.service { Some(process) } else { None }
    }

    fn break_next(&self, broken: bool) {
        if broken {
            self.p.write("www/broken", "");
        } else {
            fs::remove_file(self.p.path("www/broken")).unwrap();
        }
        if matches!(self.service, Service::Pidfile) {
            self.p.write("behavior", if broken { "exit 3\n" } else { "" });
        }
    }

    /// Before the first command.
    fn prepare(&self) {
        if let Service::Systemd(fleet, _, port) = &self.service {
            let units = self.root.with_file_name("units");
            fs::create_dir_all(units.join("shop.service.d")).unwrap();
            let text = format!("[Service]\nEnvironment=HOST={} PORT={port}\n", address(0));
            fs::write(units.join("shop.service.d/address.conf"), text).unwrap();
            fleet.ask(0, "sync; systemctl --user daemon-reload");
        }
    }

    /// Ends what runs on the disk, as a cut does.
    fn end(&self) {
        end_all_kept(&self.disk);
        if let Service::Systemd(fleet, ..) = &self.service {
            fleet.ask(0, "systemctl --user kill -s KILL shop.service; systemctl --user stop shop.service");
        }
    }

    /// Starts what systemd starts at boot.
    fn boot(&self) {
        if let Service::Systemd(fleet, ..) = &self.service {
            let boot = "daemon-reload; systemctl --user reset-failed; systemctl --user start default.target";
            fleet.ask(0, &format!("systemctl --user {boot}"));
        }
    }

    fn current(&self) -> String {
        let link = fs::read_link(self.root.join("current")).unwrap_or_default();
        link.to_str().unwrap().trim_start_matches("releases/").to_owned()
    }

    fn answers(&self) -> Result<(), String> {
        let answer = match &self.service {
            Service::None | Service::Commands => return Ok(()),
            Service::Pidfile => self.p.get("dev"),
            Service::Systemd(_, _, port) => get(&address(0), *port),
        };
        answer.map(drop).map_err(|error| format!("the app does not answer: {error}"))
    }
}

/// A first and a second deploy, one that fails and is reverted, a rollback, a third deploy and a prune.
fn story(host: &Host) -> Option<(Recording, Vec<Done>)> {
    let p = &host.p;
    let disk = Disk::mount(&p.path("target/power"), &host.disk, host.mounts(), 64)?;
    host.prepare();
    let mut done: Vec<Done> = Vec::new();
    let mut run = |line: &'static str, code: i32, live: &str, tried: &str, live_more: usize| {
        let from = disk.now();
        p.run(line).code(code);
        let to = disk.now();
        let lives = done.last().map_or(0, |last| last.lives) + live_more;
        done.push(Done { line, from, to, live: live.to_owned(), tried: tried.to_owned(), lives });
        // What the file system writes by itself afterwards is as good a phase.
        std::thread::sleep(Duration::from_millis(1500));
    };
    let one = p.release("1");
    run("deploy dev", 0, &one, &one, 1);
    let two = p.release("2");
    run("deploy dev", 0, &two, &two, 1);
    host.break_next(true);
    let three = p.release("3");
    run("deploy dev", 1, &two, &three, 0);
    run("rollback dev", 0, &one, &one, 1);
    host.break_next(false);
    let four = p.release("4");
    run("deploy dev", 0, &four, &four, 1);
    run("prune dev --keep 1", 0, &four, &four, 0);
    host.end();
    Some((disk.end(), done))
}

/// The engine's own files below a root, but those that it may leave half done, logs, and what is of one process alone.
fn own_files(root: &Path) -> Vec<PathBuf> {
    const HALF_DONE: [&str; 5] = [".incoming-", ".removing-", ".lock.", ".reserve", ".switch"];
    const OF_A_PROCESS: [&str; 5] = ["process", "exit", "log", "log.1", "log.start"];
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let half_done = Path::new(&name).extension().is_some_and(|end| end == "new")
                || HALF_DONE.iter().any(|start| name.starts_with(start));
            if half_done || OF_A_PROCESS.contains(&name.as_str()) {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files
}

/// No file is empty or holds NULs, but those of the app and the empty socket of a unit.
fn check_files(host: &Host) -> Result<(), String> {
    let empty = ["behavior", "www/broken", "/socket", "www/index.html"];
    let units = own_files(&host.root.with_file_name("units"));
    for file in own_files(&host.root).into_iter().chain(units) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(host.root.parent().unwrap()).unwrap().display().to_string();
        if bytes.is_empty() && !empty.iter().any(|end| name.ends_with(end)) {
            return Err(format!("{name} is empty"));
        }
        if bytes.contains(&0) && !name.contains("/bin/") {
            return Err(format!("{name} has NULs"));
        }
    }
    Ok(())
}

/// What is there after a cut, before any command.
fn check_host(host: &Host, before: Option<&Done>, within: Option<&Done>) -> Result<(), String> {
    let current = host.current();
    let mut allowed = vec![before.map_or("", |it| &it.live)];
    allowed.extend(within.map(|it| it.tried.as_str()));
    if !allowed.contains(&current.as_str()) {
        return Err(format!("{current:?} is live, not one of {allowed:?}"));
    }
    if !current.is_empty() {
        let mut sums = Command::new("sha256sum");
        sums.args(["--check", "--quiet", ".gangplank/SHA256SUMS"]).current_dir(host.root.join("current/"));
        let sums = sums.output().unwrap();
        if !sums.status.success() {
            return Err(format!("what is live is not whole: {}", String::from_utf8_lossy(&sums.stderr)));
        }
    }
    check_files(host)?;
    if matches!(host.service, Service::None) && !current.is_empty() && !host.root.join("current/data/db").is_dir() {
        return Err("what releases share is gone".into());
    }
    if matches!(host.service, Service::Systemd(..)) && within.is_none() && before.is_some() {
        let mut reason = Ok(());
        for _ in 0..100 {
            reason = host.answers();
            if reason.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        reason.map_err(|reason| format!("after the boot {reason}"))?;
    }
    Ok(())
}

/// What must hold after a cut, and after the commands that come next.
fn check(host: &Host, cut: Cut, done: &[Done]) -> Result<(), String> {
    let before = done.iter().rfind(|it| it.to <= cut.at);
    let within = done.iter().find(|it| it.from <= cut.at && cut.at < it.to);
    check_host(host, before, within)?;
    let history = fs::read_to_string(host.root.join("history.jsonl")).unwrap_or_default();
    let lives = history.lines().filter(|line| line.contains(r#""event":"live""#)).count();
    let told = before.map_or(0, |it| it.lives);
    if lives < told {
        return Err(format!("the history has {lives} releases that went live, and {told} were said to"));
    }
    let must = |line: &str| {
        let ran = host.p.run(line);
        if ran.code == 0 { Ok(ran) } else { Err(format!("`{line}` ended with {}: {}", ran.code, ran.stderr)) }
    };
    let said = must("status dev")?;
    if within.is_none() && said.stdout.contains("unconfirmed") {
        return Err(format!("what was said to be live is not known to be: {}", said.stdout));
    }
    must("deploy dev")?;
    host.answers()?;
    let newest = host.current();
    let pruned = before.into_iter().chain(within).any(|it| it.line.starts_with("prune"));
    if lives > 1 && !pruned {
        must("rollback dev")?;
        host.answers()?;
        if host.current() == newest {
            return Err("a rollback changed nothing".into());
        }
    }
    must("prune dev --keep 1").map(drop)
}

/// Cuts the power at some of the moments, or at all.
fn cut(name: &str, host: &Host, count: Option<usize>) {
    let Some((recording, done)) = story(host) else { return };
    let mut cuts = recording.cuts();
    // What the test itself prepared is no part of the story.
    cuts.retain(|cut| cut.at >= done[0].from);
    let all = u32::try_from(cuts.len()).unwrap();
    let drawn = count.map_or_else(|| (1..=all).collect(), |count| draw(name, all, count));
    let mut failed = Vec::new();
    for n in &drawn {
        let cut = cuts[*n as usize - 1];
        let mounted = recording.mount(cut, &host.p.path("target/power/cut"), &host.disk, host.mounts());
        host.boot();
        if let Err(reason) = check(host, cut, &done) {
            let within = done.iter().find(|it| it.from <= cut.at && cut.at < it.to).map_or("after", |_| "within");
            let which = done.iter().rfind(|it| it.from <= cut.at).map_or("nothing", |it| it.line);
            failed.push(format!("{cut:?}, {within} `{which}`: {reason}"));
        }
        host.end();
        drop(mounted);
    }
    for it in &done {
        let points = drawn.iter().filter(|n| (it.from..it.to).contains(&cuts[**n as usize - 1].at)).count();
        println!("{name}: {points} cuts within `{}`", it.line);
    }
    // A disk that records no flushes would pass.
    let within = |it: &Done| cuts.iter().filter(|cut| (it.from..it.to).contains(&cut.at)).count();
    assert!(all > 50 && done.iter().all(|it| within(it) > 2), "{name}: {all} cuts");
    println!("{name}: {} cuts of {all}, lost: {}", drawn.len(), failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn host_without_service_whose_power_is_cut_goes_on() {
    cut("no service", &Host::without_service(), Some(3));
}

#[test]
fn host_with_pidfile_whose_power_is_cut_goes_on() {
    cut("pidfile", &Host::with_pidfile(), Some(3));
}

#[test]
fn host_with_commands_whose_power_is_cut_goes_on() {
    cut("commands", &Host::with_commands(), Some(3));
}

#[test]
fn host_with_systemd_whose_power_is_cut_goes_on() {
    let Some(host) = Host::with_systemd() else { return };
    cut("systemd", &host, Some(3));
}

/// A build and a put, cut everywhere: a release that was said to be there is there and whole, and both commands go on.
#[test]
fn builder_whose_power_is_cut_keeps_its_releases() {
    let files = crate::record::tempdir();
    let mut p = Project::new();
    p.change("store file:store\n", "store file:target/store\n");
    let Some(disk) = Disk::mount(files.path(), &p.path("target"), None, 64) else { return };
    let id = p.commit("1");
    let mut said = Vec::new();
    for (line, place) in [("build", "target/releases"), ("put", "target/store")] {
        p.run(line).ok();
        said.push((disk.now(), format!("{place}/{id}")));
        std::thread::sleep(Duration::from_millis(1500));
    }
    let recording = disk.end();
    let cuts = recording.cuts();
    let mut failed = Vec::new();
    for cut in &cuts {
        let mounted = recording.mount(*cut, &files.path().join("cut"), &p.path("target"), None);
        for (at, place) in &said {
            let there = p.path(place).exists();
            let sums = Command::new("sha256sum")
                .args(["--check", "--quiet", "SHA256SUMS"])
                .current_dir(p.path(place))
                .output();
            let whole = sums.is_ok_and(|sums| sums.status.success());
            if (*at <= cut.at && !there) || (there && !whole) {
                failed.push(format!("{cut:?}: {place} is {}", if there { "not whole" } else { "not there" }));
            }
        }
        for line in ["build", "put"] {
            let ran = p.run(line);
            if ran.code != 0 {
                failed.push(format!("{cut:?}: `{line}` ended with {}: {}", ran.code, ran.stderr));
            }
        }
        drop(mounted);
    }
    println!("build and put: {} cuts, lost: {}", cuts.len(), failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
#[ignore = "group power"]
fn host_whose_power_is_cut_at_each_moment_goes_on() {
    cut("no service", &Host::without_service(), None);
    cut("pidfile", &Host::with_pidfile(), None);
    cut("commands", &Host::with_commands(), None);
}

#[test]
#[ignore = "group power"]
fn host_with_systemd_whose_power_is_cut_at_many_moments_goes_on() {
    let Some(host) = Host::with_systemd() else { return };
    cut("systemd", &host, Some(60));
}
