//! Checks of the hosts of envs: each in one round trip, in parallel.

mod resources;

use crate::doctor::check::{Check, Fault, Found, Scope, State, fault, grouped};
use crate::doctor::env::EnvCheck;
use crate::doctor::hosts::resources::{changes, clock, room};
use crate::doctor::places::{Locked, owner};
use gangplank_deploy::deploy::liveness::LivenessChecker;
use gangplank_deploy::deploy::waves::{AT_ONCE, par_map};
use gangplank_deploy::host::{Operation, Target};
use gangplank_model::error::in_env;
use gangplank_model::owner::Liveness;
use gangplank_model::plan::refuse::unusable;
use gangplank_model::project::{Compression, Env, Service};
use gangplank_model::script;
use gangplank_model::script::examine::{Examined, Needs, examine};
use gangplank_model::service;
use gangplank_model::service::run::Script;
use gangplank_model::state::ServiceState;
use gangplank_model::state::State as TargetState;
use gangplank_model::store_url::is_site;
use gangplank_system::context::{Context, Output};
use jiff::Timestamp;
use std::time::Duration;

/// The time limit of a host's checks.
const PATIENCE: Duration = Duration::from_secs(15);

/// The facts about a host.
struct HostCheck {
    url: String,
    /// Whether it is reached over ssh.
    far: bool,
    root: String,
    /// Seconds that its clock is ahead of ours.
    skew: Option<i64>,
    examined: Found<Examined>,
    state: Option<Found<TargetState>>,
    /// The result of the service's readiness check.
    ready: Option<Found<Vec<String>>>,
    /// The result of the health check of the live release.
    health: Option<Result<(), String>>,
    /// The service's address, if something answers there while the service is stopped.
    taken: Option<String>,
}

impl HostCheck {
    fn new(target: &dyn Target) -> Self {
        Self {
            url: target.url().to_owned(),
            far: target.url().starts_with("ssh:"),
            root: target.root().to_owned(),
            skew: None,
            examined: Ok(Examined::default()),
            state: None,
            ready: None,
            health: None,
            taken: None,
        }
    }
}

/// A site has a bucket, and no shell.
fn ask_site(env: &EnvCheck, target: &dyn Target) -> HostCheck {
    let (state, written) = (target.state().map_err(fault), target.examine().map_err(fault));
    let mut host =
        HostCheck { state: Some(state), examined: written.map(|()| Examined::default()), ..HostCheck::new(target) };
    if let (Some(checker), Some(Ok(state))) = (&env.checker, &host.state)
        && let Some(live) = state.live()
    {
        host.health = Some(checker.once(target, state.history.commit(live)));
    }
    host
}

/// A group per env. `locks` are those kept by stores.
pub fn look(ctx: &Context, scope: &Scope, locks: &[Locked]) -> Vec<Check> {
    let envs: Vec<_> = scope.envs.iter().map(|env| EnvCheck::new(ctx, env)).collect();
    let mut opened = Vec::new();
    let mut unopened = Vec::new();
    for (at, of) in envs.iter().enumerate() {
        for url in of.env.targets {
            match scope.tool.target_of(of.env, url) {
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
    let hosts = par_map(&opened, AT_ONCE, |(at, target)| ask(ctx, &envs[*at], compression, &**target));
    let mut checks = Vec::new();
    for (at, env_check) in envs.iter().enumerate() {
        let name = env_check.env.name;
        let mut of_env = env_check.checks();
        of_env.extend(unopened.iter().filter(|(of, _)| *of == at).map(|(_, check)| check.clone()));
        of_env.extend(locks.iter().filter(|it| it.env == name).map(|it| lock(name, Some(&it.url), it.by.as_ref())));
        checks.extend(grouped(name, of_env));
        for (host, _) in hosts.iter().zip(&opened).filter(|(_, (of, _))| *of == at) {
            let lock = host.state.as_ref().and_then(|state| owner(&liveness, &state.as_ref().ok()?.lock));
            let subject = Some(host.url.clone());
            let of_host = judge(host, env_check.env, scope.project.app.name, lock.as_ref());
            checks.extend(grouped(name, of_host).map(|check| Check { subject: subject.clone(), ..check }));
        }
    }
    checks
}

fn ask(ctx: &Context, of: &EnvCheck, compression: Compression, target: &dyn Target) -> HostCheck {
    if is_site(target.url()) {
        return ask_site(of, target);
    }
    let (env, root) = (of.env, target.root());
    let look = |what, text| Script::new(text, String::new()).called(what);
    let needs = Needs { service: &env.service, transfer: env.transfer, compression, shared: env.shared };
    let mut scripts = vec![look("look around", examine(root, needs)), look("read its state", script::state(root))];
    scripts.extend(of.spec.ready(root));
    let limit = PATIENCE / u32::try_from(scripts.len()).unwrap_or(1);
    let scripts: Vec<_> = scripts.into_iter().map(|it| Script { limit, interruptible: true, ..it }).collect();
    let acts: Vec<_> = scripts.iter().map(Operation::Run).collect();
    // Connect first, so that it does not affect the clock measurement.
    target.reach();
    let before = ctx.now();
    let answers = target.act(&acts);
    let after = ctx.now();
    let mut host = HostCheck::new(target);
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
    if let (Some(checker), Some(Ok(state))) = (&of.checker, &state)
        && let Some(live) = state.live()
    {
        host.health = Some(checker.once(target, state.history.commit(live)));
    }
    if let (Some(checker), Some(Ok(TargetState { service: ServiceState::None | ServiceState::Stopped, .. }))) =
        (&of.checker, &state)
        && matches!(env.service, Service::Pidfile { .. } | Service::Systemd { .. })
    {
        host.taken = checker.answered(target);
    }
    host.skew = examined.clock.map(|clock| skew(clock, before, after));
    HostCheck { examined: Ok(examined), state, ready, ..host }
}

/// An error of a host without its URL, which the group already shows.
fn plain(url: &str, fault: Fault) -> Fault {
    let text = fault.text.strip_prefix(&format!("{url}: ")).unwrap_or(&fault.text).to_owned();
    Fault { text, ..fault }
}

/// Seconds that a clock is ahead, read between two local times.
fn skew(clock: i64, before: Timestamp, after: Timestamp) -> i64 {
    let (before, after) = (before.as_second(), after.as_second());
    if clock < before { clock - before } else { (clock - after).max(0) }
}

fn lock(env: &str, url: Option<&str>, by: Option<&(String, Liveness)>) -> Check {
    let what = url.map_or_else(|| "lock".to_owned(), |url| format!("lock {url}"));
    match by {
        None => Check::ok(what, "free"),
        Some((by, Liveness::Dead)) => {
            let hint = format!("nothing to do, or remove it now with `cargo xtask unlock {env}`");
            Check::warning(what, format!("held by {by}"), hint)
        }
        Some((by, Liveness::Alive | Liveness::Ending | Liveness::Unknown)) => Check::broken(
            what,
            format!("held by {by}"),
            format!(
                "wait for it: `cargo xtask deploy {env} --lock-wait 600`; if it is gone: `cargo xtask unlock \
                 {env} --force`"
            ),
        ),
    }
}

fn judge(host: &HostCheck, env: &Env, app: &str, held: Option<&(String, Liveness)>) -> Vec<Check> {
    if is_site(&host.url) {
        return match &host.state {
            Some(Err(fault)) => vec![Check::of("bucket", State::Broken, &plain(&host.url, fault.clone()))],
            _ => std::iter::once(match &host.examined {
                Ok(_) => Check::ok("bucket", "writable, with conditional writes"),
                Err(fault) => Check::of("bucket", State::Broken, &plain(&host.url, fault.clone())),
            })
            .chain(live(host, env, app, held))
            .collect(),
        };
    }
    let way = if host.far { "ssh" } else { "sh" };
    let it = match &host.examined {
        Err(fault) => {
            return vec![
                Check::of(way, State::Broken, &plain(&host.url, fault.clone())),
                Check::skipped("host", "not reached"),
            ];
        }
        Ok(it) => it,
    };
    let mut checks =
        vec![if it.login.is_empty() { Check::fine(way) } else { Check::ok(way, format!("as {}", it.login)) }];
    if !it.found.is_empty() {
        checks.extend([tools(it, host.far), directory(it, host)]);
    }
    if host.far && it.lacks.is_empty() {
        checks.extend(changes(it.change));
    }
    // Measuring a large release takes time; a disk that does not report its free space hangs.
    if !it.done && it.free.is_none() {
        checks.push(Check::broken(
            "disk",
            format!("it did not report its free space within {} s", PATIENCE.as_secs()),
            format!("check its disk on that host: `df -k {}`", it.found),
        ));
        return checks;
    }
    checks.extend(room(it, env.name));
    checks.extend(host.skew.map(clock));
    checks.extend(manager(env, host.ready.as_ref()));
    if it.journal_closed {
        checks.push(Check::warning(
            "journal",
            format!("{} may not read it, so `logs` and the log of a failed service are empty", it.login),
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

/// The check for another program at the service's address.
fn taken(address: &str, far: bool, env: &Env) -> Check {
    let place = if far { "on that host " } else { "" };
    let way =
        crate::doctor::check::address(&env.health.check).and_then(|text| text.split_once("${")?.1.split_once(":-"));
    let other = way.map_or("another in xtask/src/main.rs".to_owned(), |(name, _)| format!("{name}=ANOTHER"));
    let others = env.targets.len() > 1 && !address.contains("{host}") && !far;
    let others =
        if others { "; perhaps that of another target: each on one machine needs a port of its own" } else { "" };
    Check::warning(
        "port",
        format!("another program answers at {address} while the service is stopped{others}"),
        format!("{place}find it with `ss -ltnp` and stop it, or use another port for {}: {other}", env.name),
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
        format!("missing, or not on PATH: {}", it.lacks.join(", ")),
        format!("{place}, e.g. `apt-get install {}`", packages.join(" ")),
    )
}

fn directory(it: &Examined, host: &HostCheck) -> Check {
    let (login, root) = (&it.login, gangplank_model::shell::quote(&host.root));
    let place = if host.far { "that host" } else { "this machine" };
    if let Some(blocked) = &it.blocked {
        let hint = format!("on {place} move it away, or give the env another target");
        return Check::broken("directory", format!("{blocked} is not a directory"), hint);
    }
    match it.unwritable.first() {
        None if it.found == host.root => Check::ok("directory", "writable"),
        None => Check::ok("directory", "will be created"),
        Some(path) => {
            let fix = if it.found == host.root {
                format!("chown -R {login} {root}")
            } else {
                format!("mkdir -p {root} && chown {login} {root}")
            };
            Check::broken(
                "directory",
                format!("{login} may not write {path}"),
                format!(
                    "as root of {place}: `{fix}`; if that does not help, check with `mount` whether the disk is read-only"
                ),
            )
        }
    }
}

fn manager(env: &Env, ready: Option<&Found<Vec<String>>>) -> Vec<Check> {
    let what = match env.service {
        Service::None | Service::Command { .. } => return vec![],
        Service::Pidfile { .. } => "pidfile",
        Service::Systemd { .. } => "systemd",
    };
    let mut checks = Vec::new();
    match ready {
        None => checks.push(Check::skipped(what, "not asked")),
        Some(Err(fault)) => {
            let hint = in_env(&fault.hint, Some(env.name));
            checks.push(Check::of(what, State::Broken, &Fault { hint, ..fault.clone() }));
        }
        Some(Ok(warnings)) if !warnings.is_empty() => {
            for text in warnings {
                let (detail, hint) = text.split_once("; ").unwrap_or((text, "check it with `systemctl status`"));
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
                format!("{at} is missing"),
                format!("{place} create it, with mode 600 if it has secrets"),
            )
        }
    }
}

/// The live release, and whether it can be replaced.
fn live(host: &HostCheck, env: &Env, app: &str, held: Option<&(String, Liveness)>) -> Vec<Check> {
    let state = match &host.state {
        None => return vec![Check::skipped("state", "not asked")],
        Some(Err(fault)) => return vec![Check::of("state", State::Broken, fault)],
        Some(Ok(state)) => state,
    };
    let mut checks = Vec::new();
    if let Err(error) = unusable(&host.url, state) {
        checks.push(Check::of("current", State::Broken, &plain(&host.url, fault(error))));
    }
    if let Some(theirs) = state.app.as_deref().filter(|theirs| *theirs != app) {
        let hint = "give each app its own directory, in `targets` of xtask/src/main.rs";
        checks.push(Check::broken("app", format!("a release of {theirs} is live, not of {app}"), hint));
    }
    checks.push(lock(env.name, None, held));
    if state.unfinished {
        let hint = format!("run it again, or deploy any release: `cargo xtask deploy {}`", env.name);
        checks.push(Check::warning("switch", "the last deploy or rollback did not end", hint));
    }
    let Some(id) = state.live() else {
        checks.push(Check::ok("live", "nothing yet"));
        return checks;
    };
    let logs = format!("check `cargo xtask logs {0}`, then run `cargo xtask start {0}`", env.name);
    checks.push(match (&state.service, &host.health) {
        (ServiceState::Stopped, _) => Check::warning("live", format!("{id}, but its service is stopped"), logs),
        (ServiceState::Starting, _) => {
            Check::warning("live", format!("{id}, but its service is starting, or restarting after a crash"), logs)
        }
        (ServiceState::Unknown, _) => Check::warning(
            "live",
            format!("{id}, but its service manager does not answer"),
            "check on that host with `systemctl status`, or `systemctl --user status` for a unit of the login"
                .to_owned(),
        ),
        (ServiceState::Unrecorded, _) => Check::warning(
            "live",
            format!("{id}, but its service has no record of how it was started: a deploy was interrupted"),
            format!("run `cargo xtask deploy {}`", env.name),
        ),
        (_, Some(Err(reason))) => Check::warning("live", format!("{id}, which is not healthy: {reason}"), logs),
        (ServiceState::Drifted, _) => Check::warning(
            "live",
            format!("{id}, but its unit was changed by hand"),
            format!("move the changes to a drop-in: the next `cargo xtask deploy {}` reverts them", env.name),
        ),
        _ => Check::ok("live", id.as_str()),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut Examined);

    /// State, name, and the fix or detail of every check that is neither ok nor skipped.
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
    fn judge_of_examined_host_names_the_remedy() {
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
            (
                &|it| it.change = gangplank_model::script::examine::Payload::Release,
                "warning changes: on that host, e.g. `apt-get install findutils`",
            ),
            (&|it| it.blocked = Some("/srv".into()), "broken directory: on that host move it away"),
            (
                &|it| it.unwritable = vec!["/srv/app".into()],
                "broken directory: as root of that host: `chown -R deploy /srv/app`",
            ),
            (&|it| it.unshared = vec!["a.toml".into()], "broken shared: on that host create it"),
            (&|it| it.free = Some(30 << 10), "warning disk: make room"),
            (&|it| it.free = Some(10 << 10), "broken disk: make room"),
            // A release is small if the live one is.
            (&|it| (it.free, it.live) = (Some(10 << 10), Some(1 << 10)), "warning disk: make room"),
            (&|it| (it.free, it.live) = (Some(1 << 20), Some(1 << 20)), "broken disk: make room"),
            (&|it| it.inodes = Some(0), "broken disk: make room: check `df -i`"),
            (&|it| it.free = None, ""),
            (
                &|it| it.journal_closed = true,
                "warning journal: as root of that host: `usermod -aG systemd-journal deploy`",
            ),
            (&|it| it.done = false, ""),
            (&|it| (it.free, it.done) = (None, false), "broken disk: check its disk on that host: `df -k /srv/app`"),
        ];
        for (n, (change, says)) in table.iter().enumerate() {
            let said = of(change);
            assert!(said.starts_with(says) && says.is_empty() == said.is_empty(), "{n}: {said}");
        }
    }

    #[test]
    fn judge_of_host_state_names_the_remedy() {
        let fault = Fault {
            kind: gangplank_model::error::Kind::Remote,
            text: "ssh://web1/srv/app: gone".into(),
            hint: "wait".into(),
        };
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
            (live.clone(), Some(Err("no".to_owned())), None, "warning live: check `cargo xtask logs dev`"),
            (format!("{live}service stopped\n"), None, None, "warning live: check `cargo xtask logs dev`"),
            (format!("{live}service drifted\n"), None, None, "warning live: move the changes to a drop-in"),
            (live.replace("app shop", "app other"), None, None, "broken app: give each app its own directory"),
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
                "warning port: on that host find it with `ss -ltnp` and stop it, or use another port for dev: another in xtask/src/main.rs"
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
        let sizes = [1536, 200 << 10, 69 << 20].map(resources::size);
        assert_eq!(sizes, ["1.5 MiB", "200 MiB", "69 GiB"]);
    }
}
