//! Random histories of deploy, failed deploy, rollback, promote and prune, killed between any two steps and run again.
//!
//! After every command, killed or not, on real directories: `current` points to a complete release that verifies, or
//! to what it was before; the last good release is still there; the lock is free or its owner is known; and running
//! the command again converges.

use crate::parts::{Mortal, ctx, release};
use gangplank_bundle::release::Release;
use gangplank_deploy::deploy::deployment::{Deployment, Options};
use gangplank_deploy::deploy::{prune_site, put_live, roll_back};
use gangplank_deploy::host::Target;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, kind_of, not_found};
use gangplank_model::history::Verb;
use gangplank_model::owner::Liveness;
use gangplank_model::project::{Check, Env, Health, Service};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::state::{Lock, State};
use gangplank_system::context::Context;
use gangplank_system::machine;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Releases 0 to 7; every fourth one is not healthy.
const RELEASES: u32 = 8;
const KEEP: usize = 2;

fn is_good(n: usize) -> bool {
    n % 4 != 3
}

#[derive(Debug, Clone)]
enum Op {
    Deploy { env: usize, release: usize, older: bool },
    Promote,
    Rollback { env: usize },
    Prune { env: usize },
}

/// A command, and after how many calls to its targets it is killed.
fn command() -> impl Strategy<Value = (Op, Option<usize>)> {
    let op = prop_oneof![
        6 => (0..2usize, 0..RELEASES as usize, any::<bool>()).prop_map(|(env, release, older)| Op::Deploy { env, release, older }),
        2 => Just(Op::Promote),
        3 => (0..2usize).prop_map(|env| Op::Rollback { env }),
        1 => (0..2usize).prop_map(|env| Op::Prune { env }),
    ];
    (op, prop::option::weighted(0.5, 0..16usize))
}

const fn env(name: &'static str, target: &'static [&'static str]) -> Env {
    Env {
        name,
        targets: target,
        vars: &[],
        service: Service::None,
        health: Health {
            check: Check::Command("test ! -e broken"),
            deadline: Duration::ZERO,
            interval: Duration::ZERO,
            passes: 1,
        },
        keep: KEEP,
        ..Env::DEFAULT
    }
}

/// Two hosts of one env, which must never part, and an env of one host.
static ENVS: [Env; 2] = [env("a", &["file:a1", "file:a2"]), env("b", &["file:b"])];

struct Fixture<'a> {
    ctx: &'a Context,
    releases: &'a [Release],
}

impl Fixture<'_> {
    fn site<'s>(&'s self, env: usize, left: Option<&'s AtomicUsize>) -> Deployment<'s> {
        let targets = ENVS[env].targets.iter().map(|url| {
            let target = Tool::bare(self.ctx, &crate::parts::PROJECT).target(url).unwrap();
            match left {
                Some(left) => Box::new(Mortal::new(target, left)) as Box<dyn Target>,
                None => target,
            }
        });
        Deployment::with_targets(self.ctx, &ENVS[env], targets.collect()).unwrap()
    }

    fn states(&self, env: usize) -> Vec<State> {
        self.site(env, None).snapshot(false).unwrap().hosts.into_iter().map(|host| host.state).collect()
    }

    fn number(&self, id: &ReleaseId) -> usize {
        self.releases.iter().position(|release| release.id() == id).unwrap()
    }

    /// Runs a command; gives the env and the release that it was to make live, and how it ended.
    fn run(&self, op: &Op, left: Option<&AtomicUsize>) -> (usize, Option<usize>, Result<(), Kind>) {
        let options = Options::default();
        let kinds = |done: Result<_, anyhow::Error>| done.map(drop).map_err(|error| kind_of(&error));
        match op {
            Op::Deploy { env, release, older } => {
                let options = Options { allow_older: *older, ..options };
                let done =
                    put_live(&self.site(*env, left), Verb::Deploy, &self.releases[*release].clone().into(), &options);
                (*env, Some(*release), kinds(done))
            }
            Op::Promote => match self.states(0)[0].confirmed_live().map(|id| self.number(id)) {
                Some(n) => (
                    1,
                    Some(n),
                    kinds(put_live(&self.site(1, left), Verb::Promote, &self.releases[n].clone().into(), &options)),
                ),
                None => (1, None, Ok(())),
            },
            Op::Rollback { env } => {
                let site = self.site(*env, left);
                let fetch = |id: &ReleaseId| match self.releases.iter().find(|release| release.id() == id) {
                    Some(release) => Ok(release.clone().into()),
                    None => not_found("no such release").err(),
                };
                (*env, None, kinds(roll_back(&site, None, &options, fetch)))
            }
            Op::Prune { env } => (*env, None, kinds(prune_site(&self.site(*env, left), KEEP, &options))),
        }
    }

    /// What must hold at any phase, `before` being the states before the command. Gives the states now.
    fn check(
        &self,
        env: usize,
        before: &[State],
        wanted: Option<usize>,
        killed: bool,
    ) -> Result<Vec<State>, TestCaseError> {
        let site = self.site(env, None);
        let states = self.states(env);
        for ((target, state), old) in site.targets.iter().zip(&states).zip(before) {
            if let Some(live) = state.live() {
                prop_assert!(state.installed.contains_key(live), "{} is live and not installed", live);
                prop_assert_eq!(target.verify(live).unwrap(), Vec::<String>::new());
            }
            let known = wanted.map(|n| self.releases[n].id());
            let was_good = |id: &ReleaseId| old.history.live_stack().contains(&id);
            // Without any good release a failed one is taken away.
            let none_left = state.live().is_none() && old.history.live_stack().is_empty();
            let allowed =
                none_left || state.live() == old.live() || state.live() == known || state.live().is_some_and(was_good);
            prop_assert!(allowed, "{:?} became {:?}, wanted {:?}", old.live(), state.live(), known);
            // The way back: what was live and good before is still installed.
            if let Some(good) = old.confirmed_live() {
                prop_assert!(state.installed.contains_key(good), "the good {} is gone", good);
            }
            if let Some(previous) = state.history.previous(state.live()) {
                let had = old.installed.contains_key(previous) || state.live() == known;
                prop_assert!(!had || state.installed.contains_key(previous), "the rollback {} is gone", previous);
            }
            match &state.lock {
                Lock::Free => {}
                Lock::Held(owner) if killed => prop_assert_eq!(machine::liveness(owner), Liveness::Dead),
                lock => prop_assert!(false, "the lock stayed: {:?}", lock),
            }
        }
        Ok(states)
    }

    /// Checks the state after a command that was not killed.
    fn check_end(
        &self,
        op: &Op,
        states: &[State],
        wanted: Option<usize>,
        end: Result<(), Kind>,
    ) -> Result<(), TestCaseError> {
        match (end, wanted) {
            (Ok(()), Some(n)) => {
                prop_assert!(is_good(n), "an unhealthy release stayed live");
                for state in states {
                    prop_assert_eq!(state.confirmed_live(), Some(self.releases[n].id()));
                }
            }
            (Err(kind), _) => {
                prop_assert_ne!(kind, Kind::RevertFailed, "{:?}", op);
                for state in states {
                    let live = state.live().map(|id| self.number(id));
                    prop_assert!(live.is_none_or(is_good), "an unhealthy release stayed live after {:?}", op);
                }
            }
            (Ok(()), None) => {}
        }
        let lives: Vec<_> = states.iter().map(|state| state.live().cloned()).collect();
        prop_assert!(
            lives.windows(2).all(|pair| pair[0] == pair[1]),
            "the hosts of an env parted: {:?} after {:?}",
            lives,
            op
        );
        Ok(())
    }
}

fn live_through(releases: &[Release], dir: &Path, commands: &[(Op, Option<usize>)]) -> Result<(), TestCaseError> {
    let ctx = ctx(dir);
    let fixture = Fixture { ctx: &ctx, releases };
    for (op, kill) in commands {
        let env = match op {
            Op::Deploy { env, .. } | Op::Rollback { env } | Op::Prune { env } => *env,
            Op::Promote => 1,
        };
        let way_back = |states: &[State]| -> Vec<_> {
            states.iter().map(|state| state.history.previous(state.live()).cloned()).collect()
        };
        let mut before = fixture.states(env);
        let mut back = way_back(&before);
        if let Some(after) = kill {
            let left = AtomicUsize::new(*after);
            let (env, wanted, _) = fixture.run(op, Some(&left));
            before = fixture.check(env, &before, wanted, true)?;
            if before.iter().all(|state| state.lock == Lock::Free) {
                // It had come to its end before it could be killed, so the next one is one of its own.
                back = way_back(&before);
            }
        }
        let (env, wanted, end) = fixture.run(op, None);
        let settled = fixture.check(env, &before, wanted, false)?;
        fixture.check_end(op, &settled, wanted, end)?;
        if let (Op::Rollback { .. }, Ok(())) = (op, &end) {
            let now: Vec<_> = settled.iter().map(|state| state.live().cloned()).collect();
            prop_assert_eq!(&now, &back, "killed and repeated, a rollback still goes back one");
        }
        if end.is_ok() && matches!(op, Op::Deploy { .. } | Op::Prune { .. }) {
            let (_, _, again) = fixture.run(op, None);
            prop_assert_eq!(again, Ok(()), "the second time");
            prop_assert_eq!(fixture.states(env), settled, "running it again changed something");
        }
    }
    Ok(())
}

/// A directory in memory where there is one: the tests do thousands of `sync`s.
fn fast_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { crate::record::tempdir_in(memory) } else { crate::record::tempdir() }
}

/// Runs as many histories as there are `cases`; `test` draws them.
fn run(test: &str, cases: u32) {
    let dir = fast_dir();
    let make = |n: u32| {
        let text = format!("release {n}");
        let broken = if is_good(n as usize) { vec![] } else { vec![("broken", "")] };
        release(dir.path(), n, &[&[("www/index.html", text.as_str())], broken.as_slice()].concat())
    };
    let releases: Vec<_> = (0..RELEASES).map(make).collect();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let histories = prop::collection::vec(command(), 1..6);
    let generator = TestRng::from_seed(RngAlgorithm::ChaCha, &crate::sample::bytes(test));
    let result = TestRunner::new_with_rng(config, generator).run(&histories, |commands| {
        let state = crate::record::tempdir_in(dir.path());
        live_through(&releases, state.path(), &commands)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn sampled_histories_keep_a_whole_release_live() {
    run("sampled_histories", 16);
}

#[test]
#[ignore = "group histories"]
fn many_histories_keep_a_whole_release_live_part_1() {
    run("many_histories_part_1", many() / 2);
}

#[test]
#[ignore = "group histories"]
fn many_histories_keep_a_whole_release_live_part_2() {
    run("many_histories_part_2", many().div_ceil(2));
}

fn many() -> u32 {
    std::env::var("GANGPLANK_HISTORIES").map_or(240, |n| n.parse().expect("GANGPLANK_HISTORIES is a number"))
}
