//! Checks of this machine: programs, git, and the files of the project.

use crate::doctor::check::{Check, Fault, Found, Scope, State, fault, grouped};
use gangplank_bundle::release::supports;
use gangplank_deploy::ci::generate;
use gangplank_model::error::Kind;
use gangplank_model::release::manifest::Commit;
use gangplank_system::context::{Context, Input, exit, stands_alone};
use gangplank_system::git;
use std::process::Command;
use std::time::Duration;

/// The time limit of a program's version command.
const VERSION: Duration = Duration::from_secs(10);

/// The file with the alias `cargo xtask`.
const ALIAS: &str = ".cargo/config.toml";

/// A program, and its version or error.
struct Tool {
    name: &'static str,
    get: &'static str,
    said: Found<String>,
}

/// The facts about git.
struct Git {
    /// Whether git is installed.
    here: bool,
    commit: Found<Commit>,
    shallow: bool,
    in_job: bool,
}

/// The facts about the project's files.
struct Files {
    valid: Found<()>,
    /// The expansion of the alias.
    alias: Option<String>,
    /// The cargo arguments for the xtask.
    xtask: &'static str,
    lockfile: bool,
    /// Whether CircleCI jobs run the project.
    circleci: bool,
    /// Whether the pipeline is checked: a local deploy does not need the files that only jobs read.
    pipeline: bool,
    /// Configs that are out of date.
    drift: Found<Vec<&'static str>>,
    /// Invalid URLs of targets.
    urls: Vec<Fault>,
}

/// The groups `tools`, `git` and `project`.
pub fn look(ctx: &Context, scope: &Scope) -> Vec<Check> {
    let tools = look_for_tools(ctx, scope);
    let git = Git {
        here: tools.iter().any(|tool| tool.name == "git" && tool.said.is_ok()),
        commit: git::commit(ctx).map_err(fault),
        shallow: git::is_shallow(ctx),
        in_job: scope.in_job,
    };
    let files = read_files(ctx, scope);
    let mut checks: Vec<_> = grouped("tools", judge_tools(&tools)).collect();
    checks.extend(grouped("git", judge_git(&git)));
    checks.extend(grouped("project", judge_files(&files)));
    checks
}

fn look_for_tools(ctx: &Context, scope: &Scope) -> Vec<Tool> {
    let mut wanted = vec![("git", "git", "--version", "install git, e.g. `apt-get install git`")];
    // Deploy jobs need no Rust.
    if scope.ci || !scope.in_job {
        let cargo = ctx.var("CARGO").unwrap_or("cargo");
        wanted.push(("cargo", cargo, "--version", "install Rust: https://rustup.rs"));
    }
    let over_ssh = scope.envs.iter().flat_map(|env| env.targets).any(|url| url.starts_with("ssh:"));
    if over_ssh && !scope.ci {
        wanted.push(("ssh", "ssh", "-V", "install an ssh client, e.g. `apt-get install openssh-client`"));
    }
    let ask = |(name, program, arg, get): (&'static str, &str, &str, &'static str)| {
        let mut command = Command::new(program);
        command.arg(arg);
        let said = ctx.answer_within(command, Input::Empty, Some(VERSION), true).map_err(fault);
        let said = said.and_then(|answer| {
            if answer.ok() {
                // ssh prints its version on stderr.
                return Ok([answer.stdout, answer.stderr].concat().lines().next().unwrap_or_default().to_owned());
            }
            let text = format!("`{name} {arg}` {}: {}", exit(answer.code), answer.stderr.trim());
            Err(Fault { kind: Kind::Failed, text, hint: get.to_owned() })
        });
        Tool { name, get, said }
    };
    wanted.into_iter().map(ask).collect()
}

fn read_files(ctx: &Context, scope: &Scope) -> Files {
    let project = scope.project;
    let has_config = generate::CONFIGS.iter().any(|config| ctx.root.join(config).exists());
    let valid = project.validate().and_then(|()| supports(project.app.compression)).map_err(fault);
    let targets =
        scope.envs.iter().flat_map(|env| env.targets.iter().map(|url| scope.tool.target_of(env, url).map(drop)));
    // Env groups report their own URLs, but a job has no env groups.
    let urls = targets.filter_map(Result::err).map(fault).filter(|_| scope.ci).collect();
    Files {
        alias: alias(&std::fs::read_to_string(ctx.root.join(ALIAS)).unwrap_or_default()),
        xtask: if stands_alone(&ctx.root) { "--manifest-path xtask/Cargo.toml" } else { "--package xtask" },
        lockfile: ctx.root.join("Cargo.lock").exists(),
        circleci: scope.uses_circleci(has_config),
        pipeline: scope.ci || scope.in_job,
        drift: match &valid {
            Ok(()) => generate::drift(ctx, project).map_err(fault),
            Err(fault) => Err(fault.clone()),
        },
        valid,
        urls,
    }
}

/// The expansion of `cargo xtask` in a cargo configuration.
fn alias(config: &str) -> Option<String> {
    let mut inside = false;
    for line in config.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.split(']').next().unwrap_or_default().trim() == "alias";
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().trim_matches('"');
            if (inside && key == "xtask") || key == "alias.xtask" {
                return Some(words(value.trim()));
            }
        }
    }
    None
}

/// The value of an alias as typed: it is a string or an array.
fn words(value: &str) -> String {
    match value.strip_prefix('[') {
        Some(array) => {
            let array = array.split(']').next().unwrap_or_default();
            let words = array.split(',').map(|word| word.trim().trim_matches(['"', '\'']));
            words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
        None => value.trim_start_matches(['"', '\'']).split(['"', '\'']).next().unwrap_or_default().to_owned(),
    }
}

fn judge_tools(tools: &[Tool]) -> Vec<Check> {
    let one = |tool: &Tool| match &tool.said {
        Ok(version) => {
            let version = version.split(['(', ',']).next().unwrap_or_default();
            let words = version.split_whitespace().filter(|word| ![tool.name, "version"].contains(word));
            Check::ok(tool.name, words.collect::<Vec<_>>().join(" "))
        }
        Err(fault) => Check::broken(tool.name, &fault.text, tool.get),
    };
    tools.iter().map(one).collect()
}

fn judge_git(git: &Git) -> Vec<Check> {
    let commit = match &git.commit {
        _ if !git.here => return vec![Check::skipped("commit", "git does not run")],
        Err(fault) => return vec![Check::of("commit", State::Broken, fault)],
        Ok(commit) => commit,
    };
    let sha = commit.sha.get(..7).unwrap_or(&commit.sha);
    let mut checks = vec![match &commit.branch {
        Some(branch) => Check::ok("commit", format!("{sha} on {branch}")),
        None if git.in_job => Check::ok("commit", sha),
        None => Check::warning(
            "commit",
            format!("{sha} is not on a branch, so a release has no branch"),
            "run `git switch BRANCH`",
        ),
    }];
    checks.push(if commit.dirty {
        Check::warning(
            "changes",
            "there are uncommitted changes, so a build cannot be deployed to an env with approval",
            "list them with `git status`; commit them, or run `git stash --include-untracked`",
        )
    } else {
        Check::ok("changes", "none")
    });
    checks.push(if git.shallow {
        Check::warning(
            "history",
            "the checkout is shallow, so commits are ordered only by their time",
            "`git fetch --unshallow`; in CircleCI leave `method: shallow` and `depth` out of `checkout`",
        )
    } else {
        Check::ok("history", "whole")
    });
    checks
}

fn judge_files(files: &Files) -> Vec<Check> {
    let mut checks = vec![match &files.valid {
        Ok(()) => Check::fine("xtask/src/main.rs"),
        Err(fault) => Check::of("xtask/src/main.rs", State::Broken, fault),
    }];
    checks.extend(files.urls.iter().map(|fault| Check::of("xtask/src/main.rs", State::Broken, fault)));
    let word = if files.circleci && files.pipeline { State::Broken } else { State::Warning };
    let reason = if files.circleci { "every job runs `cargo xtask`" } else { "other checkouts lack `cargo xtask`" };
    let ours = format!("xtask = \"run --quiet {} --\"", files.xtask);
    let add = format!("run `printf '[alias]\\n{ours}\\n' >> {ALIAS}`, or add to its table [alias]: {ours}");
    let change = format!("in {ALIAS}: {ours}");
    checks.push(match files.alias.as_deref() {
        Some(alias) if alias.contains("xtask") => Check::fine("alias"),
        Some(alias) => {
            Check::new("alias", word, Some(format!("`cargo xtask` is `{alias}`, not the xtask")), Some(change))
        }
        None => Check::new("alias", word, Some(format!("{ALIAS} has none, but {reason}")), Some(add)),
    });
    checks.push(match (files.lockfile, files.circleci) {
        (true, _) => Check::fine("Cargo.lock"),
        (false, circleci) => {
            let reason = if circleci {
                "there is none, but jobs build with --locked and use it as their cache key"
            } else {
                "there is none, but `cargo xtask build` needs a committed one"
            };
            let hint = "run `cargo generate-lockfile`, then commit Cargo.lock".to_owned();
            Check::new("Cargo.lock", word, Some(reason.into()), Some(hint))
        }
    });
    checks.push(match &files.drift {
        _ if files.valid.is_err() => Check::skipped("CircleCI config", "fix main.rs first"),
        _ if !files.circleci => Check::skipped("CircleCI config", "there is none, and no store needs one"),
        Err(fault) => Check::of("CircleCI config", State::Broken, fault),
        Ok(stale) if stale.is_empty() => Check::ok("CircleCI config", "up to date"),
        Ok(stale) => Check::new(
            "CircleCI config",
            word,
            Some(format!("not up to date with xtask/src/main.rs: {}", stale.join(", "))),
            Some("run `cargo xtask ci generate`, then commit .circleci".into()),
        ),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(checks: &[Check]) -> String {
        let sick = checks.iter().filter(|it| matches!(it.state, State::Broken | State::Warning));
        let one = |it: &Check| format!("{} {}: {}", it.state.as_str(), it.what, it.hint.as_deref().unwrap_or_default());
        sick.map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn aliases() {
        let ours = "run --quiet --package xtask --";
        for (config, is) in [
            (format!("[alias]\nxtask = \"{ours}\"\n"), Some(ours)),
            (format!("[build]\njobs = 2\n[ alias ]\n xtask=\"{ours}\"\n"), Some(ours)),
            (format!("alias.xtask = \"{ours}\"\n"), Some(ours)),
            (format!("[alias] # ours\n\"xtask\" = \"{ours}\" # it\n"), Some(ours)),
            ("alias.xtask = [\"run\", \"--package\", 'xtask']\n".into(), Some("run --package xtask")),
            (format!("[env]\nxtask = \"{ours}\"\n"), None),
            ("[alias]\n# xtask = \"x\"\nxt = \"x\"\n".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(alias(&config).as_deref(), is, "{config}");
        }
    }

    #[test]
    fn judge_git_of_dirty_shallow_or_detached_checkout_warns() {
        let commit = |branch: Option<&str>, dirty| {
            let time = jiff::Timestamp::UNIX_EPOCH;
            Ok(Commit { sha: "c0ffee123".into(), time, branch: branch.map(str::to_owned), tag: None, dirty })
        };
        let main = Some("main");
        for (here, commit, shallow, in_job, says) in [
            (true, commit(main, false), false, false, ""),
            (true, commit(main, true), false, false, "warning changes: list them with `git status`"),
            (true, commit(main, false), true, true, "warning history: `git fetch --unshallow`"),
            (true, commit(None, false), false, false, "warning commit: run `git switch"),
            (true, commit(None, false), false, true, ""),
            (false, commit(main, false), false, false, ""),
            (
                true,
                Err(Fault { kind: Kind::Usage, text: "none".into(), hint: "git init".into() }),
                false,
                false,
                "broken commit: git init",
            ),
        ] {
            let said = told(&judge_git(&Git { here, commit, shallow, in_job }));
            assert!(said.starts_with(says) && says.is_empty() == said.is_empty(), "{said}");
        }
    }

    #[test]
    fn judge_files_of_missing_or_stale_file_names_the_remedy() {
        let fault = |hint: &str| Fault { kind: Kind::Usage, text: "no".into(), hint: hint.into() };
        let well = || Files {
            valid: Ok(()),
            alias: Some("run --package xtask --".into()),
            xtask: "--package xtask",
            lockfile: true,
            circleci: true,
            pipeline: true,
            drift: Ok(vec![]),
            urls: vec![],
        };
        for (files, says) in [
            (well(), ""),
            (Files { valid: Err(fault("set keep")), ..well() }, "broken xtask/src/main.rs: set keep"),
            (Files { urls: vec![fault("use ssh://")], ..well() }, "broken xtask/src/main.rs: use ssh://"),
            (Files { alias: None, ..well() }, "broken alias: run `printf '[alias]"),
            (Files { alias: Some("check".into()), ..well() }, "broken alias: in .cargo/config.toml: xtask ="),
            (
                Files { alias: Some("check".into()), xtask: "--manifest-path xtask/Cargo.toml", ..well() },
                "broken alias: in .cargo/config.toml: xtask = \"run --quiet --manifest-path xtask/Cargo.toml --\"",
            ),
            (Files { alias: None, circleci: false, ..well() }, "warning alias: run `printf '[alias]"),
            (Files { lockfile: false, ..well() }, "broken Cargo.lock: run `cargo generate-lockfile`"),
            (Files { lockfile: false, circleci: false, ..well() }, "warning Cargo.lock: run `cargo generate-lockfile`"),
            (
                Files { drift: Ok(vec!["config.yml"]), ..well() },
                "broken CircleCI config: run `cargo xtask ci generate`",
            ),
            (
                Files { drift: Ok(vec!["config.yml"]), pipeline: false, ..well() },
                "warning CircleCI config: run `cargo xtask ci generate`",
            ),
            (Files { lockfile: false, pipeline: false, ..well() }, "warning Cargo.lock: run `cargo generate-lockfile`"),
            (Files { drift: Err(fault("add a store")), ..well() }, "broken CircleCI config: add a store"),
            (Files { drift: Err(fault("add a store")), circleci: false, ..well() }, ""),
        ] {
            let said = told(&judge_files(&files));
            assert!(said.starts_with(says) && says.is_empty() == said.is_empty(), "{says}: {said}");
        }
        let gone = Tool { name: "git", get: "install git", said: Err(fault("")) };
        let there = Tool { name: "cargo", get: "", said: Ok("cargo 1.95.0 (abc 2026)".into()) };
        let checks = judge_tools(&[gone, there]);
        assert_eq!((told(&checks).as_str(), checks[1].detail.as_deref()), ("broken git: install git", Some("1.95.0")));
    }
}
