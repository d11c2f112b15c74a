//! The power of a host is cut at every moment that its disk can tell from another, and it boots again.

mod disk;

use crate::project::{Project, end_all_kept};
use crate::record::skip;
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
    /// When it had ended.
    to: usize,
    /// What is live after it.
    live: String,
    /// What may be live while it runs.
    tried: String,
    /// How many records `live` the history has after it.
    lives: usize,
}

/// What runs a release.
#[derive(Debug, Clone, Copy)]
enum Manager {
    None,
    Keeper,
}

impl Manager {
    fn project(self) -> Project {
        match self {
            Self::None => {
                let mut p = Project::new();
                p.change(
                    "target file:srv/dev\n",
                    "target file:srv/dev\nkeep 2\nhealthy test ! -e www/broken\npatience 200|50|1\n",
                );
                p
            }
            Self::Keeper => {
                let mut p = Project::with_service();
                p.change("target file:srv/dev\n", "target file:srv/dev\nkeep 2\npatience 3000|50|1\n");
                p
            }
        }
    }
}

/// A first and a second deploy, one that fails and is reverted, a rollback, a third deploy and a prune, on a disk that records.
fn story(p: &Project) -> Option<(Recording, Vec<Done>)> {
    let disk = Disk::mount(&p.path("target/power"), &p.path("srv"), 48)?;
    let mut done: Vec<Done> = Vec::new();
    let mut run = |line: &'static str, code: i32, live: &str, tried: &str, live_more: usize| {
        let from = disk.now();
        p.run(line).code(code);
        let to = disk.now();
        let lives = done.last().map_or(0, |last| last.lives) + live_more;
        done.push(Done { line, from, to, live: live.to_owned(), tried: tried.to_owned(), lives });
        // What the file system writes by itself afterwards is as good a moment.
        std::thread::sleep(Duration::from_millis(2500));
    };
    let one = p.release("1");
    run("deploy dev", 0, &one, &one, 1);
    let two = p.release("2");
    run("deploy dev", 0, &two, &two, 1);
    p.write("www/broken", "");
    p.write("behavior", "exit 3\n");
    let three = p.release("3");
    run("deploy dev", 1, &two, &three, 0);
    run("rollback dev", 0, &one, &one, 1);
    fs::remove_file(p.path("www/broken")).unwrap();
    p.write("behavior", "");
    let four = p.release("4");
    run("deploy dev", 0, &four, &four, 1);
    run("prune dev --keep 1", 0, &four, &four, 0);
    end_all_kept(&p.path("srv"));
    Some((disk.end(), done))
}

/// The engine's own files below a target, but those that it may leave half done, logs, and what is of one process alone.
fn own_files(target: &Path) -> Vec<PathBuf> {
    const HALF_DONE: [&str; 5] = [".incoming-", ".removing-", ".lock.", ".reserve", ".switch"];
    const OF_A_PROCESS: [&str; 5] = ["process", "exit", "log", "log.1", "log.start"];
    let mut files = Vec::new();
    let mut dirs = vec![target.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let half_done = name.ends_with(".new") || HALF_DONE.iter().any(|start| name.starts_with(start));
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

fn check_files(p: &Project, allowed_empty: &[&str]) -> Result<(), String> {
    for file in own_files(&p.path("srv/dev")) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(p.path("srv/dev")).unwrap().display().to_string();
        let text = file.extension().is_none_or(|ext| ext != "bin") && !name.contains("/bin/");
        if bytes.is_empty() && !allowed_empty.iter().any(|end| name.ends_with(end)) {
            return Err(format!("{name} is empty"));
        }
        if text && bytes.contains(&0) {
            return Err(format!("{name} has NULs"));
        }
    }
    Ok(())
}

/// What must hold after a cut, and after the commands that come next.
fn check(p: &Project, manager: Manager, cut: Cut, done: &[Done]) -> Result<(), String> {
    let before = done.iter().rfind(|it| it.to <= cut.at);
    let within = done.iter().find(|it| it.from <= cut.at && cut.at < it.to);
    let current = p.current("srv/dev").unwrap_or_default();
    let allowed: Vec<_> =
        [before.map_or("", |it| &it.live)].into_iter().chain(within.map(|it| it.tried.as_str())).collect();
    if !allowed.contains(&current.as_str()) {
        return Err(format!("{current:?} is live, not one of {allowed:?}"));
    }
    if !current.is_empty() {
        let mut sums = Command::new("sha256sum");
        sums.args(["--check", "--quiet", ".gangplank/SHA256SUMS"]).current_dir(p.path("srv/dev/current/"));
        let sums = sums.output().unwrap();
        if !sums.status.success() {
            return Err(format!("what is live is not whole: {}", String::from_utf8_lossy(&sums.stderr)));
        }
    }
    check_files(p, &["behavior", "www/broken"])?;
    let history = fs::read_to_string(p.path("srv/dev/history.jsonl")).unwrap_or_default();
    let lives = history.lines().filter(|line| line.contains(r#""event":"live""#)).count();
    let told = before.map_or(0, |it| it.lives);
    if lives < told {
        return Err(format!("the history has {lives} releases that went live, and {told} were said to"));
    }
    let must = |line: &str| {
        let ran = p.run(line);
        if ran.code == 0 { Ok(ran) } else { Err(format!("`{line}` ended with {}: {}", ran.code, ran.stderr)) }
    };
    let said = must("status dev")?;
    if within.is_none() && said.stdout.contains("unconfirmed") {
        return Err(format!("what was said to be live is not known to be: {}", said.stdout));
    }
    must("deploy dev")?;
    if matches!(manager, Manager::Keeper) {
        p.get("dev").map_err(|error| format!("the app does not answer after a deploy: {error}"))?;
    }
    let newest = p.current("srv/dev").unwrap_or_default();
    if lives > 1
        && !(before.is_some_and(|it| it.line.starts_with("prune")))
        && within.is_none_or(|it| !it.line.starts_with("prune"))
    {
        must("rollback dev")?;
        if p.current("srv/dev").unwrap_or_default() == newest {
            return Err("a rollback changed nothing".into());
        }
    }
    must("prune dev --keep 1").map(drop)
}

/// Cuts the power at some of the moments, or at all.
fn cut(name: &str, manager: Manager, count: Option<usize>) {
    let p = manager.project();
    let Some((recording, done)) = story(&p) else { return };
    let cuts = recording.cuts();
    let all = u32::try_from(cuts.len()).unwrap();
    let drawn = count.map_or_else(|| (1..=all).collect(), |count| draw(name, all, count));
    let mut failed = Vec::new();
    for n in &drawn {
        let cut = cuts[*n as usize - 1];
        let mounted = recording.mount(cut, &p.path("target/power/cut"), &p.path("srv"));
        if let Err(why) = check(&p, manager, cut, &done) {
            let within = done.iter().find(|it| it.from <= cut.at && cut.at < it.to).map_or("after", |_| "within");
            let which = done.iter().rfind(|it| it.from <= cut.at).map_or("nothing", |it| it.line);
            failed.push(format!("{cut:?}, {within} `{which}`: {why}"));
        }
        end_all_kept(&p.path("srv"));
        drop(mounted);
    }
    eprintln!("{manager:?}: {} cuts of {all}, lost: {}", drawn.len(), failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn host_without_service_whose_power_is_cut_goes_on() {
    cut("power of a host without service", Manager::None, Some(6));
}

#[test]
fn host_with_keeper_whose_power_is_cut_goes_on() {
    cut("power of a host with a keeper", Manager::Keeper, Some(6));
}

#[test]
#[ignore = "group power"]
fn all_of_power() {
    let _ = skip;
    for manager in [Manager::None, Manager::Keeper] {
        cut("all", manager, None);
    }
}
