//! The envs: their variables, and each of their hosts, asked in one round trip, all at once.

use crate::context::{Context, Output};
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::plan::usable;
use crate::deploy::state::ServiceState;
use crate::deploy::state::State as TargetState;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::doctor::places::{Locked, owner};
use crate::doctor::{Check, Fault, Found, Scope, State, fault, grouped};
use crate::error::in_env;
use crate::health::Checker;
use crate::host::script::examine::{Examined, Needs, examine};
use crate::host::{Operation, Target, script};
use crate::owner::Liveness;
use crate::project::{Compression, Env, Service};
use crate::service::{self, Script, Spec};
use jiff::Timestamp;
use std::time::Duration;

/// How long a host may take for all that it is asked.
const PATIENCE: Duration = Duration::from_secs(15);
/// A clock that is wrong by more than this makes histories that nobody understands.
const SKEW_MAX: i64 = 30;
/// A release of an env that has none yet is taken to be this big, in KiB.
const UNKNOWN_SIZE: u64 = 16 << 10;
/// With less than so many KiB free somebody should look.
const SCARCE: u64 = 512 << 10;

/// An env with what of it can be filled in here.
struct EnvCheck<'a> {
    env: &'a Env,
    spec: Spec,
    checker: Option<Checker>,
    /// What is not set, or wrong with an address.
    faults: Vec<(&'static str, Fault)>,
}

/// What is known of a host.
struct HostCheck {
    url: String,
    /// Whether it is reached by ssh, or this machine.
    far: bool,
    root: String,
    /// Seconds by which its clock is ahead of ours.
    skew: Option<i64>,
    examined: Found<Examined>,
    state: Option<Found<TargetState>>,
    /// What its service manager would say to a restart.
    ready: Option<Found<Vec<String>>>,
    /// What the health check says of what is live.
    health: Option<Result<(), String>>,
    /// The address of the service, where something answers and the service does not run.
    taken: Option<String>,
}

/// A group for each env. `locks` are those that stores keep.
pub fn look(ctx: &Context, scope: &Scope, locks: &[Locked]) -> Vec<Check> {
    let sites: Vec<_> = scope.envs.iter().map(|env| fill_in(ctx, env)).collect();
    let mut opened = Vec::new();
    let mut unopened = Vec::new();
    for (at, site) in sites.iter().enumerate() {
        for url in site.env.targets {
            match scope.tool.target(url) {
                Ok(target) => opened.push((at, target)),
                Err(error) => unopened.push((at, Check::of(*url, State::Broken, &fault(error)))),
            }
        }
    }
    if !opened.is_empty() {
        let hosts = if opened.len() == 1 { "host" } else { "hosts" };
        ctx.note(format!("asking {} {hosts}", opened.len()));
    }
    let liveness = LivenessChecker::new(ctx, scope.project.ci.slug);
    let compression = scope.project.app.compression;
    let hosts = par_map(&opened, AT_ONCE, |(at, target)| ask(ctx, &sites[*at], compression, &**target));
    let mut checks = Vec::new();
    for (at, site) in sites.iter().enumerate() {
        let name = site.env.name;
        let mut of_env = judge_site(site);
        of_env.extend(unopened.iter().filter(|(of, _)| *of == at).map(|(_, check)| check.clone()));
        of_env.extend(locks.iter().filter(|it| it.env == name).map(|it| lock(name, Some(&it.url), it.by.as_ref())));
        checks.extend(grouped(name, of_env));
        for (host, _) in hosts.iter().zip(&opened).filter(|(_, (of, _))| *of == at) {
            let lock = host.state.as_ref().and_then(|state| owner(&liveness, &state.as_ref().ok()?.lock));
            let subject = Some(host.url.clone());
            let of_host = judge(host, site.env, scope.project.app.name, lock.as_ref());
            checks.extend(grouped(name, of_host).map(|check| Check { subject: subject.clone(), ..check }));
        }
    }
    checks
}

fn fill_in<'a>(ctx: &Context, env: &'a Env) -> EnvCheck<'a> {
    let (mut vars, mut faults) = (Vec::new(), Vec::new());
    for (name, text) in env.vars {
        match ctx.expand(text) {
            Ok(value) => vars.push(((*name).to_owned(), value)),
            Err(error) => faults.push((*name, fault(error))),
        }
    }
    let spec = Spec::new(&env.service, &vars);
    let checker = Checker::new(ctx, &env.health, &spec).map_err(|error| faults.push(("health check", fault(error))));
    EnvCheck { env, spec, checker: checker.ok(), faults }
}

fn ask(ctx: &Context, site: &EnvCheck, compression: Compression, target: &dyn Target) -> HostCheck {
    let (env, root) = (site.env, target.root());
    let look = |what, text| Script::new(text, String::new()).called(what);
    let needs = Needs { service: &env.service, transfer: env.transfer, compression, shared: env.shared };
    let mut scripts = vec![look("look around", examine(root, needs)), look("read its state", script::state(root))];
    scripts.extend(site.spec.ready(root));
    let limit = PATIENCE / u32::try_from(scripts.len()).unwrap_or(1);
    let scripts: Vec<_> = scripts.into_iter().map(|it| Script { limit, interruptible: true, ..it }).collect();
    let acts: Vec<_> = scripts.iter().map(Operation::Run).collect();
    // What it takes to get there says nothing of a clock.
    target.reach();
    let before = ctx.now();
    let answers = target.act(&acts);
    let after = ctx.now();
    let mut host = HostCheck {
        url: target.url().to_owned(),
        far: target.url().starts_with("ssh:"),
        root: root.to_owned(),
        skew: None,
        examined: Ok(Examined::default()),
        state: None,
        ready: None,
        health: None,
        taken: None,
    };
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) => return HostCheck { examined: Err(fault(error)), ..host },
    };
    let found = |at: usize| {
        let reason = |answer| plain(&host.url, fault(target.complaint(&acts[at], answer)));
        answers.get(at).map(|answer| if answer.ok() { Ok(answer.stdout.as_str()) } else { Err(reason(answer)) })
    };
    let examined = Examined::parse(answers.first().map_or("", |answer| answer.stdout.as_str()));
    let state = found(1).map(|said| said.map(TargetState::parse));
    let warnings = |answer: &Output| service::warnings(&answer.stderr).map(str::to_owned).collect();
    let ready = found(2).map(|said| said.map(|_| answers.get(2).map(warnings).unwrap_or_default()));
    if let (Some(checker), Some(Ok(state))) = (&site.checker, &state)
        && let Some(live) = state.live()
    {
        host.health = Some(checker.once(target, state.history.commit(live)));
    }
    if let (Some(checker), Some(Ok(TargetState { service: ServiceState::None | ServiceState::Stopped, .. }))) =
        (&site.checker, &state)
        && matches!(env.service, Service::Pidfile { .. } | Service::Systemd { .. })
    {
        host.taken = checker.answered(target);
    }
    host.skew = examined.clock.map(|clock| skew(clock, before, after));
    HostCheck { examined: Ok(examined), state, ready, ..host }
}

/// A fault of a host without its URL, which stands above it.
fn plain(url: &str, fault: Fault) -> Fault {
    let text = fault.text.strip_prefix(&format!("{url}: ")).unwrap_or(&fault.text).to_owned();
    Fault { text, ..fault }
}

/// Seconds by which a clock is ahead that was read between two moments of ours.
fn skew(clock: i64, before: Timestamp, after: Timestamp) -> i64 {
    let (before, after) = (before.as_second(), after.as_second());
    if clock < before { clock - before } else { (clock - after).max(0) }
}

fn judge_site(site: &EnvCheck) -> Vec<Check> {
    let mut checks = Vec::new();
    let vars = site.env.vars.len();
    for (name, fault) in &site.faults {
        let hint = match site.env.context {
            Some(context) => format!("{}; jobs have what context {context} holds", fault.hint),
            None => fault.hint.clone(),
        };
        checks.push(Check::broken(*name, &fault.text, hint));
    }
    if checks.is_empty() && vars > 0 {
        checks.push(Check::fine("variables"));
    }
    checks
}

fn lock(env: &str, url: Option<&str>, by: Option<&(String, Liveness)>) -> Check {
    let what = url.map_or_else(|| "lock".to_owned(), |url| format!("lock {url}"));
    match by {
        None => Check::ok(what, "free"),
        Some((by, Liveness::Dead)) => {
            let hint = format!("nothing to do; to remove it now: `cargo xtask unlock {env}`");
            Check::warning(what, format!("held by {by}"), hint)
        }
        Some((by, Liveness::Alive | Liveness::Ending | Liveness::Unknown)) => Check::broken(
            what,
            format!("held by {by}"),
            format!(
                "wait for it: `cargo xtask deploy {env} --lock-wait 600`; if it is gone for good: `cargo xtask lock \
                 release {env} --force`"
            ),
        ),
    }
}

fn judge(host: &HostCheck, env: &Env, app: &str, held: Option<&(String, Liveness)>) -> Vec<Check> {
    let way = if host.far { "ssh" } else { "sh" };
    let it = match &host.examined {
        Err(fault) => {
            return vec![
                Check::of(way, State::Broken, &plain(&host.url, fault.clone())),
                Check::skipped("host", "it was not reached"),
            ];
        }
        Ok(it) => it,
    };
    let mut checks =
        vec![if it.login.is_empty() { Check::fine(way) } else { Check::ok(way, format!("as {}", it.login)) }];
    if !it.found.is_empty() {
        checks.extend([tools(it, host.far), directory(it, host)]);
    }
    if it.whole && host.far && it.lacks.is_empty() {
        checks.push(Check::warning(
            "changes",
            "its xargs has no -0: releases are sent whole",
            "on that host, e.g. `apt-get install findutils`",
        ));
    }
    // A large release takes its time to be added up; a disk that does not say how full it is hangs.
    if !it.done && it.free.is_none() {
        checks.push(Check::broken(
            "disk",
            format!("it did not say within {} s how much room there is", PATIENCE.as_secs()),
            format!("does its disk hang? On that host: `df -k {}`", it.found),
        ));
        return checks;
    }
    checks.extend(room(it, env.name));
    checks.extend(host.skew.map(clock));
    checks.extend(manager(env, host.ready.as_ref()));
    if it.journal_closed {
        checks.push(Check::warning(
            "journal",
            format!("{} may not read it: `logs`, and the log after a failure, show nothing", it.login),
            format!("as root of that host: `usermod -aG systemd-journal {}`", it.login),
        ));
    }
    if !env.shared.is_empty() {
        checks.push(shared(it, host));
    }
    checks.extend(live(host, env, app, held));
    checks.extend(host.taken.as_deref().map(|address| taken(address, host.far, env)));
    checks
}

/// Somebody else where the service wants to listen.
fn taken(address: &str, far: bool, env: &Env) -> Check {
    let place = if far { "on that host " } else { "" };
    let way = super::address(&env.health.check).and_then(|text| text.split_once("${")?.1.split_once(":-"));
    let other = way.map_or("another in xtask/src/main.rs".to_owned(), |(name, _)| format!("{name}=ANOTHER"));
    Check::warning(
        "port",
        format!("something answers at {address} while the service does not run"),
        format!("{place}`ss -ltnp` shows what; end it, or give {} a port of its own: {other}", env.name),
    )
}

fn tools(it: &Examined, far: bool) -> Check {
    if it.lacks.is_empty() {
        return Check::fine("tools");
    }
    let package = |tool: &String| match tool.as_str() {
        "sha256sum" | "readlink" | "sort" | "uniq" | "head" | "tail" | "touch" => "coreutils".to_owned(),
        "find" => "findutils".to_owned(),
        "systemctl" => "systemd".to_owned(),
        _ => tool.clone(),
    };
    let mut packages: Vec<_> = it.lacks.iter().map(package).collect();
    packages.dedup();
    let place = if far { "on that host" } else { "here" };
    Check::broken(
        "tools",
        format!("not there, or not on PATH: {}", it.lacks.join(", ")),
        format!("{place}, e.g. `apt-get install {}`", packages.join(" ")),
    )
}

fn directory(it: &Examined, host: &HostCheck) -> Check {
    let (login, root) = (&it.login, script::quote(&host.root));
    let place = if host.far { "that host" } else { "this machine" };
    if let Some(blocked) = &it.blocked {
        let hint = format!("on {place} move it away, or give the env another target");
        return Check::broken("directory", format!("{blocked} is in the way, and no directory"), hint);
    }
    match it.unwritable.first() {
        None if it.found == host.root => Check::ok("directory", "may be written"),
        None => Check::ok("directory", "not there yet, and may be made"),
        Some(path) => {
            let mend = if it.found == host.root {
                format!("chown -R {login} {root}")
            } else {
                format!("mkdir -p {root} && chown {login} {root}")
            };
            Check::broken(
                "directory",
                format!("{login} may not write {path}"),
                format!(
                    "as root of {place}: `{mend}`; if that does not help, `mount` shows whether the disk is read-only"
                ),
            )
        }
    }
}

/// Whether a release has room, packed and unpacked.
fn room(it: &Examined, env: &str) -> Option<Check> {
    let free = it.free?;
    let want = it.live.map_or(UNKNOWN_SIZE, |live| live * 2);
    let hint = format!("make room: `df -h` shows the disk; `cargo xtask prune {env}` removes old releases");
    Some(if free < want {
        let reason = format!("{} free, and a release takes {} while it is installed", size(free), size(want));
        Check::broken("disk", reason, hint)
    } else if it.inodes == Some(0) {
        Check::broken("disk", "there is room, but for no more files (inodes)", hint.replace("df -h", "df -i"))
    } else if free < SCARCE {
        Check::warning("disk", format!("{} free", size(free)), hint)
    } else {
        Check::ok("disk", format!("{} free", size(free)))
    })
}

fn size(kib: u64) -> String {
    match kib {
        0..10_240 => format!("{:.1} MiB", kib as f64 / 1024.0),
        10_240..10_485_760 => format!("{} MiB", kib >> 10),
        _ => format!("{} GiB", kib >> 20),
    }
}

fn clock(skew: i64) -> Check {
    if skew.abs() <= SKEW_MAX {
        return Check::fine("clock");
    }
    let (by, how) = (skew.abs(), if skew > 0 { "ahead of" } else { "behind" });
    Check::warning(
        "clock",
        format!("{by} s {how} ours: histories will show a wrong order"),
        "set the one that is wrong: `timedatectl set-ntp true`",
    )
}

fn manager(env: &Env, ready: Option<&Found<Vec<String>>>) -> Vec<Check> {
    let what = match env.service {
        Service::None | Service::Command { .. } => return vec![],
        Service::Pidfile { .. } => "pidfile",
        Service::Systemd { .. } => "systemd",
    };
    let mut checks = Vec::new();
    match ready {
        None => checks.push(Check::skipped(what, "it was not asked")),
        Some(Err(fault)) => {
            let hint = in_env(&fault.hint, Some(env.name));
            checks.push(Check::of(what, State::Broken, &Fault { hint, ..fault.clone() }));
        }
        Some(Ok(warnings)) if !warnings.is_empty() => {
            for text in warnings {
                let (detail, hint) = text.split_once("; ").unwrap_or((text, "`systemctl status` shows how it is"));
                checks.push(Check::warning(what, detail, hint));
            }
        }
        Some(Ok(_)) => checks.push(Check::fine(what)),
    }
    checks
}

fn shared(it: &Examined, host: &HostCheck) -> Check {
    match it.unshared.first() {
        None => Check::fine("shared"),
        Some(path) => {
            let place = if host.far { "on that host" } else { "here" };
            let at = format!("{}/shared/{path}", host.root);
            Check::broken(
                "shared",
                format!("{at} is not there"),
                format!("{place} put a file there, mode 600 if it holds secrets"),
            )
        }
    }
}

/// What is live, and whether it can be replaced.
fn live(host: &HostCheck, env: &Env, app: &str, held: Option<&(String, Liveness)>) -> Vec<Check> {
    let state = match &host.state {
        None => return vec![Check::skipped("state", "it was not asked")],
        Some(Err(fault)) => return vec![Check::of("state", State::Broken, fault)],
        Some(Ok(state)) => state,
    };
    let mut checks = Vec::new();
    if let Err(error) = usable(&host.url, state) {
        checks.push(Check::of("current", State::Broken, &plain(&host.url, fault(error))));
    }
    if let Some(theirs) = state.app.as_deref().filter(|theirs| *theirs != app) {
        checks.push(Check::broken(
            "app",
            format!("a release of {theirs} is live there, not of {app}"),
            "give each app a directory of its own, in `targets` of xtask/src/main.rs",
        ));
    }
    checks.push(lock(env.name, None, held));
    let Some(id) = state.live() else {
        checks.push(Check::ok("live", "nothing yet"));
        return checks;
    };
    let logs = format!("`cargo xtask logs {0}` shows why; `cargo xtask start {0}` starts it again", env.name);
    checks.push(match (&state.service, &host.health) {
        (ServiceState::Stopped, _) => Check::warning("live", format!("{id}, and its service does not run"), logs),
        (ServiceState::Starting, _) => Check::warning(
            "live",
            format!("{id}, and systemd is starting its service, or starts it again after a crash"),
            logs,
        ),
        (ServiceState::Unknown, _) => Check::warning(
            "live",
            format!("{id}, and its service manager does not answer"),
            "on that host `systemctl status`, `systemctl --user status` for a unit of the login, shows why".to_owned(),
        ),
        (ServiceState::Unrecorded, _) => Check::warning(
            "live",
            format!("{id}, and its service runs without a record of how it was started: a deploy ended in between"),
            format!("`cargo xtask deploy {}` starts it again", env.name),
        ),
        (_, Some(Err(reason))) => Check::warning("live", format!("{id}, which is not healthy: {reason}"), logs),
        (ServiceState::Drifted, _) => Check::warning(
            "live",
            format!("{id}, and its unit was changed by hand"),
            format!("put changes into a drop-in: the next `cargo xtask deploy {}` undoes them", env.name),
        ),
        _ => Check::ok("live", id.as_str()),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut Examined);

    /// State, name and either the fix or what was found, of all that is not well and not skipped.
    fn told(checks: &[Check]) -> Vec<String> {
        let sick = checks.iter().filter(|check| !matches!(check.state, State::Ok | State::Skipped));
        sick.map(|it| format!("{} {}: {}", it.state.as_str(), it.what, it.hint.as_deref().unwrap_or("no hint")))
            .collect()
    }

    fn well() -> Examined {
        Examined {
            clock: Some(0),
            login: "deploy".into(),
            found: "/srv/app".into(),
            free: Some(1 << 30),
            done: true,
            ..Examined::default()
        }
    }

    fn host(it: Examined) -> HostCheck {
        HostCheck {
            url: "ssh://web1/srv/app".into(),
            far: true,
            root: "/srv/app".into(),
            skew: Some(0),
            examined: Ok(it),
            state: Some(Ok(TargetState::default())),
            ready: Some(Ok(vec![])),
            health: None,
            taken: None,
        }
    }

    const ENV: Env = Env {
        name: "dev",
        service: Service::Pidfile { run: &["bin/app"], stop_timeout: Duration::ZERO },
        shared: &["uploads/"],
        ..Env::DEFAULT
    };

    #[test]
    fn what_a_host_says_and_what_to_do() {
        let of = |change: &dyn Fn(&mut Examined)| {
            let mut it = well();
            change(&mut it);
            told(&judge(&host(it), &ENV, "shop", None)).join("; ")
        };
        assert_eq!(of(&|_| {}), "");
        let table: &[(Change, &str)] = &[
            (
                &|it| it.lacks = vec!["tar".into(), "find".into()],
                "broken tools: on that host, e.g. `apt-get install tar findutils`",
            ),
            (&|it| it.found = "/srv".into(), ""),
            (&|it| it.whole = true, "warning changes: on that host, e.g. `apt-get install findutils`"),
            (&|it| it.blocked = Some("/srv".into()), "broken directory: on that host move it away"),
            (
                &|it| it.unwritable = vec!["/srv/app".into()],
                "broken directory: as root of that host: `chown -R deploy /srv/app`",
            ),
            (&|it| it.unshared = vec!["a.toml".into()], "broken shared: on that host put a file there"),
            (&|it| it.free = Some(30 << 10), "warning disk: make room"),
            (&|it| it.free = Some(10 << 10), "broken disk: make room"),
            // A release is small where one is known to be.
            (&|it| (it.free, it.live) = (Some(10 << 10), Some(1 << 10)), "warning disk: make room"),
            (&|it| (it.free, it.live) = (Some(1 << 20), Some(1 << 20)), "broken disk: make room"),
            (&|it| it.inodes = Some(0), "broken disk: make room: `df -i`"),
            (&|it| it.free = None, ""),
            (
                &|it| it.journal_closed = true,
                "warning journal: as root of that host: `usermod -aG systemd-journal deploy`",
            ),
            (&|it| it.done = false, ""),
            (
                &|it| (it.free, it.done) = (None, false),
                "broken disk: does its disk hang? On that host: `df -k /srv/app`",
            ),
        ];
        for (n, (change, says)) in table.iter().enumerate() {
            let said = of(change);
            assert!(said.starts_with(says) && says.is_empty() == said.is_empty(), "{n}: {said}");
        }
    }

    #[test]
    fn what_is_on_a_host() {
        let fault =
            Fault { kind: crate::error::Kind::Remote, text: "ssh://web1/srv/app: gone".into(), hint: "wait".into() };
        let lost = judge(&HostCheck { examined: Err(fault.clone()), ..host(well()) }, &ENV, "shop", None);
        assert_eq!(told(&lost), ["broken ssh: wait"]);
        assert_eq!(lost[0].detail.as_deref(), Some("gone"));
        let id = "20260822T101500-1a2b3c4";
        let of = |state: &str, health, held: Option<Liveness>| {
            let held = held.map(|life| ("ana".to_owned(), life));
            let it = HostCheck { state: Some(Ok(TargetState::parse(state))), health, ..host(well()) };
            told(&judge(&it, &ENV, "shop", held.as_ref())).join("; ")
        };
        let live = format!("root\ncurrent releases/{id}\napp shop\nrelease {id} x\n");
        assert_eq!(of(&live, Some(Ok(())), None), "");
        for (state, health, held, says) in [
            (live.clone(), Some(Err("no".to_owned())), None, "warning live: `cargo xtask logs dev`"),
            (format!("{live}service stopped\n"), None, None, "warning live: `cargo xtask logs dev`"),
            (format!("{live}service drifted\n"), None, None, "warning live: put changes into a drop-in"),
            (live.replace("app shop", "app other"), None, None, "broken app: give each app a directory"),
            (live.clone(), None, Some(Liveness::Dead), "warning lock: nothing to do"),
            (live.clone(), None, Some(Liveness::Alive), "broken lock: wait for it"),
            (live.clone(), None, Some(Liveness::Unknown), "broken lock: wait for it"),
            ("root\ncurrent-blocked\n".into(), None, None, "broken current: what it serves is offline once"),
            ("root\ncurrent /elsewhere\n".into(), None, None, "broken current: `cargo xtask deploy ENV --take-over`"),
        ] {
            let said = of(&state, health, held);
            assert!(said.starts_with(says), "{state}: {said}");
        }
        let port = HostCheck { taken: Some("http://web1:80".into()), ..host(well()) };
        let said = told(&judge(&port, &ENV, "shop", None));
        assert_eq!(
            said,
            [
                "warning port: on that host `ss -ltnp` shows what; end it, or give dev a port of its own: another in xtask/src/main.rs"
            ]
        );
        let refused = HostCheck { state: Some(Err(fault)), ready: None, ..host(well()) };
        assert_eq!(told(&judge(&refused, &ENV, "shop", None)), ["broken state: wait"]);
    }

    #[test]
    fn clocks() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (clock, ahead) in [(100, 0), (105, 0), (110, 0), (70, -30), (150, 40)] {
            assert_eq!(skew(clock, at(100), at(110)), ahead, "{clock}");
        }
        assert_eq!((clock(30).state, clock(31).state, clock(-31).state), (State::Ok, State::Warning, State::Warning));
        assert_eq!(
            (size(1536), size(200 << 10), size(69 << 20)),
            ("1.5 MiB".into(), "200 MiB".into(), "69 GiB".into())
        );
    }
}
