//! A host with the layout that Capistrano settled: `releases/<id>/`, `current`, `history.jsonl`, `.lock`.
//!
//! The local machine is a host like any other: what is done there is said to `sh` in the words that a remote host
//! would be told, so both are one implementation and one set of tests.

mod install;
mod room;

use crate::context::{Context, Input, Output};
use crate::deploy::history::Record;
use crate::deploy::state::{Lock, Lockable, State};
use crate::error::{CliError, Kind, Result, failed, split_hint, verification};
use crate::event::Stream;
use crate::host::frame::{self, Marker, one_line};
use crate::host::script::attend::attended;
use crate::host::script::lease;
use crate::host::script::room::is_full;
use crate::host::ssh::{Address, Ssh};
use crate::host::through::Through;
use crate::host::transport::Transport;
use crate::host::{Delivery, Operation, Target, entries, script, sequence};
use crate::owner;
use crate::owner::Owner;
use crate::release::id::ReleaseId;
use crate::release::manifest::{self, Manifest};
use crate::service::Script;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a renewal of the lock may take.
const RENEWAL: Duration = Duration::from_secs(10);

/// How long a disk may take over a release, to hash it or to remove it.
const SLOW_DISK: Duration = Duration::from_secs(3600);

/// The directory of a host.
pub struct HostTarget<'ctx> {
    ctx: &'ctx Context,
    url: String,
    root: String,
    place: Connection<'ctx>,
    /// Token of the lock that we have.
    token: Mutex<Option<String>>,
    /// Token of the last lock that we gave up.
    given_up: Mutex<Option<String>>,
    /// What was said of the state when the lock was taken. Nobody else changes it, and we have not yet.
    fresh: Mutex<Option<State>>,
    /// What was live, with the digest of its bundle, when last seen.
    live: Mutex<Option<(ReleaseId, String)>>,
}

enum Connection<'ctx> {
    /// This machine, and the path of its shell: a program that is looked for is forked for, and a fork copies the tables
    /// of our memory.
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

    /// A directory of another machine.
    pub fn remote(ctx: &'ctx Context, url: &str, address: Address) -> Self {
        Self::at(ctx, url, address.root.clone(), Connection::There(Ssh::new(ctx, url, address)))
    }

    /// A directory of wherever `program` runs the words that come after it, e.g. `["docker", "exec", "-i", "web1"]`. `name` is
    /// what people call that place.
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
        }
    }

    /// Says something to the host. A clean environment keeps our variables, tokens among them, out of it, as ssh would.
    fn exec(&self, text: &str, input: Input, limit: Option<Duration>, interruptible: bool) -> Result<Output> {
        set(&self.fresh, None);
        // Whoever finds our lock when we are gone sees by this whether our last command is gone too.
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

    /// A shell of this machine that runs a script.
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

    /// A script that is only run while the lock under which it is said is ours. The first line is what -v shows of it.
    fn fenced(&self, what: &str, text: &str) -> String {
        let fence = self.token().map(|token| lease::fence(&self.root, &token)).unwrap_or_default();
        format!("# {what}\n{fence}{text}")
    }

    /// Says something that has to work.
    fn run_checked(&self, what: &str, text: &str, input: Input) -> Result<String> {
        self.run_unfenced(what, &self.fenced(what, text), input)
    }

    /// The same without a look at the lock.
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

    /// An act as a script and what it reads.
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
            Operation::Unlock => {
                (self.token().map_or_else(|| ":".to_owned(), |token| script::unlock(root, Some(&token))), String::new())
            }
        }
    }

    /// The state, whoever has the lock: looking harms nobody.
    fn look(&self) -> Result<State> {
        let what = "read its state";
        let said = self.run_unfenced(what, &format!("# {what}\n{}", script::state(&self.root)), Input::Empty)?;
        Ok(self.seen(&said))
    }

    /// Does acts up to the first one that fails, in one script.
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
        state
    }

    /// The failure of a script that was not run because the lock is another's.
    fn lost(&self, what: &str, said: &str) -> CliError {
        let now = said.lines().map(Lock::parse).find_map(|lock| match lock {
            Lock::Held(owner) => Some(format!("{} has it", owner.by)),
            _ => None,
        });
        let now = now.unwrap_or_else(|| "it was removed".into());
        CliError::new(Kind::Locked, format!("{}: did not {what}: the lock is not ours any more, {now}", self.url)).hint(
            "this run was not heard of for too long, or somebody removed its lock: `cargo xtask status` shows what is live now",
        )
    }

    fn complain(&self, what: &str, answer: &Output) -> CliError {
        let said = [answer.stderr.trim(), answer.stdout.trim()]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or("it said nothing");
        if is_lost(answer) {
            return self.lost(what, &answer.stderr);
        }
        let (said, known) = split_hint(said);
        let message = format!("{}: cannot {what}: {}", self.url, self.ctx.scrub(said));
        if answer.code == Some(script::EXIT_VERIFICATION) {
            return verification(message)
                .hint("the bytes on the host are not those of the release: look at the disk, then deploy again");
        }
        let hint = if let Some(known) = known {
            known
        } else if is_full(said) {
            "make room: `df -h` and `df -i` show the disk; what is in releases/ and not live may be removed by hand, the oldest first"
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
        // Whoever takes over holds nothing yet.
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
        // It looks itself whose lock that is.
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
        // What was done before the one that failed is not done again, nor is a command of the project.
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

/// Whether a script was not run because the lock is another's by now.
fn is_lost(answer: &Output) -> bool {
    answer.code == Some(lease::EXIT_LOST) && answer.stderr.contains(lease::LOST)
}

/// The answers of the parts of a sequence of `count` that were begun. One that did not come to its end, because the script
/// was ended, has the answer of the script.
fn parts(marker: &Marker, answer: &Output, count: usize) -> Vec<Output> {
    let (parts, stdout, stderr) = sequence::parts(marker, &answer.stdout, &answer.stderr);
    let ended = parts.into_iter().map(|(code, stdout, stderr)| Output { code, stdout, stderr, cut: false });
    // No more than there are parts, whatever the parts print.
    let mut answers: Vec<_> = ended.take(count).collect();
    if answers.len() < count && answers.iter().all(Output::ok) {
        let code = answer.code.filter(|code| *code != 0);
        answers.push(Output { code, stdout, stderr, cut: answer.cut });
    }
    answers
}

/// What an act does, for people who look at the processes of a host.
fn name(act: &Operation) -> String {
    match act {
        Operation::Run(script) => script.what.to_owned(),
        Operation::VerifyFiles(id) => format!("check the files of {id}"),
        Operation::Activate(Some(id), _) => format!("activate {id}"),
        Operation::Activate(None, _) => "remove `current`".to_owned(),
        Operation::Record(_) => "write the history".to_owned(),
        Operation::Remove(..) => "remove old releases".to_owned(),
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
