//! A target directory in Capistrano's layout: `releases/<id>/`, `current`, `history.jsonl`, `.lock`.
//!
//! The local machine runs the same `sh` scripts as a remote host, so one implementation and one test suite cover both.

mod install;
mod room;

use crate::host::ssh::{Address, Ssh};
use crate::host::through::Through;
use crate::host::transport::Transport;
use crate::host::{Delivery, Operation, Target};
use gangplank_model::error::{CliError, Kind, Result, failed, split_hint, verification};
use gangplank_model::event::Stream;
use gangplank_model::frame;
use gangplank_model::frame::{Marker, one_line};
use gangplank_model::history::Record;
use gangplank_model::owner;
use gangplank_model::owner::Owner;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::Manifest;
use gangplank_model::script::attend::attended;
use gangplank_model::script::lease;
use gangplank_model::script::room::is_full;
use gangplank_model::service::run::Script;
use gangplank_model::state::{Lock, Lockable, State};
use gangplank_model::transfer::Abilities;
use gangplank_model::{entries, script, sequence};
use gangplank_system::context::{Context, Input, Output};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The time limit of a lock renewal.
const RENEWAL: Duration = Duration::from_secs(10);

/// The time limit of hashing or removing a release on a slow disk.
const SLOW_DISK: Duration = Duration::from_secs(3600);

/// A target directory on a host.
pub struct HostTarget<'ctx> {
    ctx: &'ctx Context,
    url: String,
    root: String,
    place: Connection<'ctx>,
    /// Token of the lock that is held.
    token: Mutex<Option<String>>,
    /// Token of the last lock that was released.
    given_up: Mutex<Option<String>>,
    /// The state printed when the lock was taken: valid until our first change, because the lock keeps others out.
    fresh: Mutex<Option<State>>,
    /// The live release and the digest of its bundle, when last read.
    live: Mutex<Option<(ReleaseId, String)>>,
    /// What the host can do, when its state was last read.
    abilities: Mutex<Option<Abilities>>,
}

enum Connection<'ctx> {
    /// This machine, with the path of its shell. Looking a program up would fork, and a fork copies our page tables.
    Here(PathBuf),
    There(Ssh<'ctx>),
    Behind(Through<'ctx>),
}

impl<'ctx> HostTarget<'ctx> {
    /// A directory of this machine.
    pub fn local(ctx: &'ctx Context, url: &str, dir: &Path) -> Self {
        let sh = ctx.program_on_path("sh").unwrap_or_else(|| "/bin/sh".into());
        Self::at(ctx, url, dir.to_string_lossy().into_owned(), Connection::Here(sh))
    }

    /// A directory of an ssh host.
    pub fn remote(ctx: &'ctx Context, url: &str, address: Address) -> Self {
        Self::at(ctx, url, address.root.clone(), Connection::There(Ssh::new(ctx, url, address)))
    }

    /// A directory of the place where `program` runs the words after it, e.g. `["docker", "exec", "-i", "web1"]`.
    /// `name` is its display name.
    pub fn through(ctx: &'ctx Context, url: &str, name: &str, dir: &str, program: &[&str]) -> Self {
        Self::at(ctx, url, dir.to_owned(), Connection::Behind(Through::new(ctx, url, name, program)))
    }

    fn at(ctx: &'ctx Context, url: &str, root: String, place: Connection<'ctx>) -> Self {
        Self {
            ctx,
            url: url.to_owned(),
            root,
            place,
            token: Mutex::default(),
            given_up: Mutex::default(),
            fresh: Mutex::default(),
            live: Mutex::default(),
            abilities: Mutex::default(),
        }
    }

    /// Runs a script on the host, in a clean environment, so that our variables and tokens do not reach it.
    fn exec(&self, text: &str, input: Input, limit: Option<Duration>, interruptible: bool) -> Result<Output> {
        set(&self.fresh, None);
        // The token is part of the command line, so that a later run can see whether our last command still runs.
        let token = self.token();
        let sh = match &self.place {
            Connection::There(ssh) => return ssh.exec(text, token.as_deref(), input, limit, interruptible),
            Connection::Behind(it) => return it.exec(text, token.as_deref(), input, limit, interruptible),
            Connection::Here(sh) => sh,
        };
        let marked = token.as_deref().map(owner::mark).map(|mark| format!("# {mark}\n{text}"));
        let command = self.shell(sh, marked.as_deref().unwrap_or(text));
        self.ctx.answer_within(command, input, limit, interruptible)
    }

    /// A local shell that runs a script.
    fn shell(&self, sh: &Path, text: &str) -> Command {
        let mut command = Command::new(sh);
        command.arg("-c").arg(text).current_dir("/").env_clear();
        for name in frame::KEPT {
            if let Some(value) = self.ctx.var(name) {
                command.env(name, value);
            }
        }
        command
    }

    fn token(&self) -> Option<String> {
        get(&self.token)
    }

    /// A script that exits if our lock changed owner. `what` is its first line, shown by `-v`.
    fn fenced(&self, what: &str, text: &str) -> String {
        let fence = self.token().map(|token| lease::fence(&self.root, &token)).unwrap_or_default();
        format!("# {what}\n{fence}{text}")
    }

    /// Runs a fenced script that must succeed.
    fn run_checked(&self, what: &str, text: &str, input: Input) -> Result<String> {
        self.run_unfenced(what, &self.fenced(what, text), input)
    }

    /// Runs a script that must succeed, without the lock check.
    fn run_unfenced(&self, what: &str, text: &str, input: Input) -> Result<String> {
        let answer = self.exec(text, input, None, false)?;
        if answer.ok() {
            return Ok(answer.stdout);
        }
        Err(self.complain(what, &answer).into())
    }

    fn took(&self, owner: &Owner, lock: Lock) -> Lock {
        if lock == Lock::Free {
            set(&self.token, Some(owner.token.clone()));
        }
        lock
    }

    /// The script of an operation and its stdin.
    fn script(&self, act: &Operation) -> (String, String) {
        let line = |record: &Record| record.to_line();
        let root = &self.root;
        match act {
            Operation::Run(script) => (script.text.clone(), script.stdin.clone()),
            Operation::VerifyFiles(id) => (script::verify_files(root, id), String::new()),
            Operation::Activate(Some(id), record) => (script::activate(root, id), record.map(line).unwrap_or_default()),
            Operation::Activate(None, record) => (script::deactivate(root), record.map(line).unwrap_or_default()),
            Operation::Record(record) => (script::record(root), line(record)),
            Operation::Remove(releases, record) => (script::remove(root, releases), line(record)),
            Operation::KeepCheck(json) => (script::keep_check(root), (*json).to_owned()),
            Operation::KeptCheck => (script::kept_check(root), String::new()),
            Operation::Unlock => {
                (self.token().map_or_else(|| ":".to_owned(), |token| script::unlock(root, Some(&token))), String::new())
            }
        }
    }

    /// The state, read without the lock.
    fn look(&self) -> Result<State> {
        let what = "read its state";
        let said = self.run_unfenced(what, &format!("# {what}\n{}", script::state(&self.root)), Input::Empty)?;
        Ok(self.seen(&said))
    }

    /// Runs operations in one script, up to the first failure.
    fn act_once(&self, acts: &[Operation]) -> Result<Vec<Output>> {
        let what: Vec<_> = acts.iter().map(name).collect();
        let what = what.join(", ");
        let mut scripts: Vec<_> = acts.iter().map(|act| self.script(act)).collect();
        let runs: Vec<_> =
            acts.iter().filter_map(|act| if let Operation::Run(it) = act { Some(it) } else { None }).collect();
        let slow = if runs.len() < acts.len() { SLOW_DISK } else { Duration::ZERO };
        let limit = (!runs.is_empty()).then(|| runs.iter().map(|script| script.limit).sum::<Duration>() + slow);
        let interruptible = runs.len() == acts.len() && runs.iter().all(|script| script.interruptible);
        let alone = scripts.len() == 1;
        let marker = Marker::random();
        let (text, input) = if alone { scripts.remove(0) } else { sequence::sequence(&marker, &scripts) };
        let text = self.fenced(&what, &text);
        let answer = self.exec(&text, Input::Bytes(input.as_bytes()), limit, interruptible)?;
        if is_lost(&answer) {
            return self.lost(&what, &answer.stderr).err();
        }
        let answers = if alone { vec![answer] } else { parts(&marker, &answer, acts.len()) };
        if answers.len() == acts.len()
            && acts.iter().zip(&answers).any(|(act, answer)| matches!(act, Operation::Unlock) && answer.ok())
        {
            set(&self.given_up, self.token());
            set(&self.token, None);
        }
        Ok(answers)
    }

    fn seen(&self, said: &str) -> State {
        let state = State::parse(said);
        let live = state.live().and_then(|live| Some((live.clone(), state.installed.get(live)?.clone())));
        set(&self.live, live);
        set(&self.abilities, Some(Abilities::parse(said)));
        state
    }

    /// The error of a script that did not run because the lock has another owner.
    fn lost(&self, what: &str, said: &str) -> CliError {
        let now = said.lines().map(Lock::parse).find_map(|lock| match lock {
            Lock::Held(owner) => Some(format!("{} has it", owner.by)),
            _ => None,
        });
        let now = now.unwrap_or_else(|| "it was removed".into());
        CliError::new(Kind::Locked, format!("{}: cannot {what}: lost the lock, {now}", self.url))
            .hint("its lease expired or its lock was removed: check what is live with `cargo xtask status`")
    }

    fn complain(&self, what: &str, answer: &Output) -> CliError {
        let said = [answer.stderr.trim(), answer.stdout.trim()]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or("no output");
        if is_lost(answer) {
            return self.lost(what, &answer.stderr);
        }
        let (said, known) = split_hint(said);
        let message = format!("{}: cannot {what}: {}", self.url, self.ctx.scrub(said));
        // A full disk is the cause, and bytes that differ are its effect.
        if answer.code == Some(gangplank_model::script::compare::EXIT_VERIFICATION) && !is_full(said) {
            return verification(message)
                .hint("check the disk of the host, then deploy again: the bytes there are not those of the release");
        }
        let hint = if let Some(known) = known {
            known
        } else if is_full(said) {
            "make room: `df -h` and `df -i` show the disk; releases that are not live may be removed by hand, oldest first"
        } else if said.contains("nput/output error") {
            "the disk of the host reports an error: look at `dmesg` there"
        } else if said.contains("ermission denied") || said.contains("Read-only file system") {
            "check who owns the directory and whether the disk is writable"
        } else if said.contains("is not a directory") {
            "move the file away, or give the env another target"
        } else {
            "run it again with -v to see the commands"
        };
        failed(message).hint(hint.to_owned())
    }
}

impl Lockable for HostTarget<'_> {
    fn url(&self) -> &str {
        &self.url
    }

    fn holder(&self) -> Result<Lock> {
        Ok(self.look()?.lock)
    }

    fn lock(&self, owner: &Owner) -> Result<Lock> {
        let scripts = [
            (script::lock(&self.root, &owner.token), String::from_utf8_lossy(&to_json(owner)).into_owned()),
            (script::state(&self.root), String::new()),
        ];
        let marker = Marker::random();
        let (text, input) = sequence::sequence(&marker, &scripts);
        let text = format!("# take the lock\n{text}");
        let take = || {
            let answer = self.exec(&text, Input::Bytes(input.as_bytes()), None, false)?;
            let mut answers = parts(&marker, &answer, scripts.len());
            if answers.is_empty() {
                answers.push(answer);
            }
            Ok(answers)
        };
        let answers = self.with_room(take, |answers| &mut answers[0])?;
        let said = &answers[0];
        if !said.ok() {
            return Err(self.complain("take the lock", said).into());
        }
        let lock = self.took(owner, held(&said.stdout));
        if let (Lock::Free, Some(state)) = (&lock, answers.get(1).filter(|state| state.ok())) {
            let state = self.seen(&state.stdout);
            set(&self.fresh, Some(state));
        }
        Ok(lock)
    }

    fn take_over(&self, owner: &Owner, seen: &Owner, dead: &Owner) -> Result<Lock> {
        let json = to_json(owner);
        // A takeover starts without a lock.
        set(&self.token, None);
        let seconds_since_renewal = seen.seconds_since_renewal.unwrap_or_default();
        let text = script::take_over(&self.root, &owner.token, &seen.token, &dead.token, seconds_since_renewal);
        let what = "take over the lock";
        let answer = self.exec_with_room(&self.fenced(what, &text), &json)?;
        if !answer.ok() {
            return Err(self.complain(what, &answer).into());
        }
        Ok(self.took(owner, held(&answer.stdout)))
    }

    fn unlock(&self, token: Option<&str>) -> Result<()> {
        if token.is_some() && get(&self.given_up).as_deref() == token {
            return Ok(());
        }
        let never_reached = matches!(&self.place, Connection::There(ssh) if !ssh.was_reached());
        if token.is_some() && never_reached {
            return Ok(());
        }
        // The script checks the owner of the lock itself.
        let (what, text) = ("give up the lock", script::unlock(&self.root, token));
        self.run_unfenced(what, &format!("# {what}\n{text}"), Input::Empty)?;
        set(&self.token, None);
        Ok(())
    }

    fn renew(&self) {
        let Some(token) = self.token() else { return };
        let text = format!("# renew the lock\n{}", lease::renew(&self.root, &token));
        match &self.place {
            Connection::There(ssh) => ssh.exec_concurrent(&text, RENEWAL),
            Connection::Behind(it) => drop(it.exec(&text, None, Input::Empty, Some(RENEWAL), false)),
            Connection::Here(sh) => {
                let _ = self.ctx.answer_within(self.shell(sh, &text), Input::Empty, Some(RENEWAL), false);
            }
        }
    }
}

impl Target for HostTarget<'_> {
    fn root(&self) -> &str {
        &self.root
    }

    fn host(&self) -> &str {
        match &self.place {
            Connection::Here(_) => "127.0.0.1",
            Connection::There(ssh) => &ssh.address.host,
            Connection::Behind(it) => &it.name,
        }
    }

    fn reach(&self) {
        if let Connection::There(ssh) = &self.place {
            ssh.reach();
        }
    }

    fn state(&self) -> Result<State> {
        if let Some(state) = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(state);
        }
        self.look()
    }

    fn install(&self, delivery: &Delivery, record: &Record) -> Result<()> {
        self.deliver(delivery, record)
    }

    fn act(&self, acts: &[Operation]) -> Result<Vec<Output>> {
        let (mut answers, mut rounds) = (self.act_once(acts)?, 0);
        // Operations before the failed one are not repeated, nor is a command of the project.
        while let Some(act) = answers.len().checked_sub(1).and_then(|at| acts.get(at))
            && !matches!(act, Operation::Run(script) if script.of_project)
            && let Some(last) = answers.last_mut().filter(|last| !last.ok())
            && self.made_room(last, rounds)
        {
            rounds += 1;
            answers.pop();
            answers.extend(self.act_once(&acts[answers.len()..])?);
        }
        Ok(answers)
    }

    fn complaint(&self, act: &Operation, answer: &Output) -> anyhow::Error {
        self.complain(&name(act), answer).into()
    }

    fn manifest(&self, release: &ReleaseId) -> Result<Manifest> {
        let text =
            self.run_checked("read a manifest", &script::read_meta(&self.root, release, manifest::FILE), Input::Empty)?;
        Manifest::parse(text.as_bytes(), &format!("{} {release}", self.url))
    }

    fn verify(&self, release: &ReleaseId) -> Result<Vec<String>> {
        let manifest = self.manifest(release)?;
        let text = script::verify(&self.root, release);
        let lists = format!("digests\n{}\n{}", manifest.checksums(), manifest.entries());
        let said = self.run_checked("check the files", &text, Input::Bytes(lists.as_bytes()))?;
        let (digests, entries) = said.split_once("entries\n").unwrap_or((&said, ""));
        Ok(digests.lines().map(str::to_owned).chain(entries::differences(entries)).collect())
    }

    fn attend(
        &self,
        script: &Script,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>> {
        let text = format!("# {}\n{}", script.what, script.text);
        let sh = match &self.place {
            Connection::There(ssh) => return ssh.stream(&text, &script.stdin, heard, stop),
            Connection::Behind(it) => return it.stream(&text, &script.stdin, heard, stop),
            Connection::Here(sh) => sh,
        };
        let command = self.shell(sh, &format!("# {}\n{}", script.what, attended(&script.text)));
        let shown = format!("sh # {}", script.what);
        let (code, stopped) =
            self.ctx.stream(&shown, command, one_line(&script.stdin).as_bytes(), heard, stop, &|| false)?;
        Ok(code.filter(|_| !stopped))
    }
}

/// Whether a script did not run because the lock has another owner.
fn is_lost(answer: &Output) -> bool {
    answer.code == Some(lease::EXIT_LOST) && answer.stderr.contains(lease::LOST)
}

/// The results of the started parts of a sequence of `count`. An unfinished part, of a script that was killed, gets the
/// result of the script.
fn parts(marker: &Marker, answer: &Output, count: usize) -> Vec<Output> {
    let (parts, stdout, stderr) = sequence::parts(marker, &answer.stdout, &answer.stderr);
    let ended = parts.into_iter().map(|(code, stdout, stderr)| Output { code, stdout, stderr, cut: false });
    // Parts may print lines that look like markers, so never more than there are parts.
    let mut answers: Vec<_> = ended.take(count).collect();
    if answers.len() < count && answers.iter().all(Output::ok) {
        let code = answer.code.filter(|code| *code != 0);
        answers.push(Output { code, stdout, stderr, cut: answer.cut });
    }
    answers
}

/// The name of an operation in the host's process list.
fn name(act: &Operation) -> String {
    match act {
        Operation::Run(script) => script.what.to_owned(),
        Operation::VerifyFiles(id) => format!("check the files of {id}"),
        Operation::Activate(Some(id), _) => format!("activate {id}"),
        Operation::Activate(None, _) => "remove `current`".to_owned(),
        Operation::Record(_) => "write the history".to_owned(),
        Operation::Remove(..) => "remove old releases".to_owned(),
        Operation::KeepCheck(_) => "keep the health check".to_owned(),
        Operation::KeptCheck => "read the health check".to_owned(),
        Operation::Unlock => "give up the lock".to_owned(),
    }
}

fn get<T: Clone>(shared: &Mutex<Option<T>>) -> Option<T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set<T>(shared: &Mutex<Option<T>>, value: Option<T>) {
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn to_json(owner: &Owner) -> Vec<u8> {
    let mut json = serde_json::to_vec(owner).expect("an owner has no maps with odd keys");
    json.push(b'\n');
    json
}

fn held(said: &str) -> Lock {
    match said.trim().split_once('\n') {
        Some((held, owner)) if held.starts_with("held") => {
            Lock::parse(owner).seconds_since_renewal(&held["held".len()..])
        }
        _ if said.trim() == "acquired" => Lock::Free,
        _ => Lock::Unreadable(String::new()),
    }
}
