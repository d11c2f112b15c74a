//! The question before a change of an env with approval: prints the plan in one line; approval covers exactly one plan.

use crate::report::style::count;
use crate::report::term;
use gangplank_deploy::deploy::apply::Outcome;
use gangplank_deploy::deploy::deployment::Options;
use gangplank_model::error::{Result, failed, usage};
use gangplank_model::history::Verb;
use gangplank_model::plan::Step;
use gangplank_model::project::Env;
use gangplank_model::release::id::ReleaseId;
use gangplank_system::context::Context;
use gangplank_system::git;
use std::io::IsTerminal;

/// Changes an env. `approved` skips the question; a CircleCI job was approved before it started.
pub fn approved(
    ctx: &Context,
    env: &Env,
    approved: bool,
    options: &Options,
    change: &dyn Fn(&Options) -> Result<Outcome>,
) -> Result<Outcome> {
    if !env.approval || approved || options.dry_run || ctx.in_ci() {
        return change(options);
    }
    // Before anything is downloaded for a plan.
    if !can_ask() {
        decide(env, None)?;
    }
    let plan = change(&Options { dry_run: true, ..options.clone() })?;
    // An empty plan needs no approval.
    if !plan.nothing_to_do() {
        decide(env, ask(ctx, &question(&plan, &|older, newer| commits(ctx, older, newer)))?)?;
    }
    change(&Options { approved: Some(plan.targets), ..options.clone() })
}

/// Asks for confirmation of an action without a plan.
pub fn confirm(ctx: &Context, env: &Env, approved: bool, what: &str) -> Result<()> {
    if !env.approval || approved || ctx.in_ci() {
        return Ok(());
    }
    decide(env, ask(ctx, &format!("{what} {}?", env.name))?)
}

/// Asks for confirmation of an irreversible action, also without approval of the env, and in a job.
pub fn confirm_loss(ctx: &Context, env: &Env, yes: bool, what: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    match ask(ctx, &format!("{what} {}?", env.name))? {
        None => usage(format!("confirmation needed to {what} {}, and there is no terminal to ask on", env.name))
            .hint("add --yes to confirm")
            .err(),
        answer => decide(env, answer),
    }
}

/// Asks on the terminal; `None` without one.
pub fn ask(ctx: &Context, question: &str) -> Result<Option<bool>> {
    if !can_ask() {
        return Ok(None);
    }
    Ok(Some(matches!(answer(ctx, &format!("{question} [y/N] "))?.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
}

/// Asks for a text on the terminal; the default without one.
pub fn ask_text(ctx: &Context, question: &str, default: &str) -> Result<String> {
    if !can_ask() {
        return Ok(default.to_owned());
    }
    let line = answer(ctx, &format!("{question} [{default}]: "))?;
    if line.is_empty() {
        return failed("no answer; nothing was created").hint("use flags: `cargo xtask new --help`").err();
    }
    let line = line.trim();
    Ok(if line.is_empty() { default } else { line }.to_owned())
}

fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The line typed after a prompt. Ctrl-C counts as an answer.
fn answer(ctx: &Context, prompt: &str) -> Result<String> {
    let mut line = String::new();
    ctx.asking(true);
    term::prompt(prompt);
    let read = std::io::stdin().read_line(&mut line);
    ctx.asking(false);
    read?;
    Ok(line)
}

/// Continues only after a yes.
fn decide(env: &Env, answer: Option<bool>) -> Result<()> {
    match answer {
        Some(true) => Ok(()),
        Some(false) => failed("not confirmed, nothing was changed")
            .hint(format!("`cargo xtask plan {}` shows what a deploy would do", env.name))
            .err(),
        None => usage(format!("{} needs approval, and there is no terminal to ask on", env.name))
            .hint("add --yes to confirm")
            .err(),
    }
}

/// The number of commits in `newer` that are not in `older`, if this checkout has both.
fn commits(ctx: &Context, older: &ReleaseId, newer: &ReleaseId) -> Option<usize> {
    git::log(ctx, older.short_sha(), newer.short_sha()).map(|log| log.len())
}

/// A plan as a one-line question.
fn question(plan: &Outcome, commits: &dyn Fn(&ReleaseId, &ReleaseId) -> Option<usize>) -> String {
    let steps = || plan.targets.iter().flat_map(|host| &host.steps);
    let mut from = Vec::new();
    for step in steps() {
        if let Step::Activate { from: was, .. } = step
            && !from.contains(&was.as_ref())
        {
            from.push(was.as_ref());
        }
    }
    let targets = match plan.targets.iter().filter(|host| !host.steps.is_empty()).count() {
        1 => String::new(),
        n => format!(" on {}", count(n, "target")),
    };
    let what = match (&plan.release, &from[..]) {
        (Some(to), [_, ..]) => {
            let lives: Vec<_> = from.iter().map(|was| was.map_or("nothing", ReleaseId::short)).collect();
            let news = match from[..] {
                [Some(was)] => distance(was, to, commits),
                _ => String::new(),
            };
            format!("{} -> {}{news}{targets}", lives.join(", "), to.short())
        }
        // The release is already live, and only something around it changes.
        _ => {
            let mut words: Vec<String> = Vec::new();
            for step in steps().map(ToString::to_string) {
                if !words.contains(&step) {
                    words.push(step);
                }
            }
            format!("{}{targets}", words.join(", "))
        }
    };
    let failed = match plan.failed_in.as_slice() {
        [] => String::new(),
        envs => format!(" (it FAILED in {})", envs.join(", ")),
    };
    let verb = if plan.verb == Verb::Rollback { "roll back" } else { plan.verb.as_str() };
    format!("{}: {what}{failed}; {verb}?", plan.env)
}

/// The commits that a switch adds and removes.
fn distance(was: &ReleaseId, to: &ReleaseId, commits: &dyn Fn(&ReleaseId, &ReleaseId) -> Option<usize>) -> String {
    let said = |verb, n| match n {
        None | Some(0) => String::new(),
        Some(n) => format!(", {verb} {}", count(n, "commit")),
    };
    said("brings", commits(was, to)) + &said("takes away", commits(to, was))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::plan::HostPlan;

    const A: &str = "20260822T101500-aaaaaaa";
    const B: &str = "20260823T101500-bbbbbbb";

    fn id(text: &str) -> ReleaseId {
        text.parse().unwrap()
    }

    fn host(target: &str, steps: Vec<Step>) -> HostPlan {
        HostPlan { target: target.into(), steps, fallback: None, replaces: None }
    }

    fn switch(from: Option<&str>, to: &str) -> Vec<Step> {
        vec![
            Step::Install { release: id(to) },
            Step::Activate { release: id(to), from: from.map(id) },
            Step::Confirm { release: id(to) },
        ]
    }

    #[test]
    fn question_names_releases_commits_and_targets() {
        let (a, b) = (&A[16..], &B[16..]);
        let knows = |older: &ReleaseId, newer: &ReleaseId| Some(if older < newer { 3 } else { 0 });
        let ignorant = |_: &ReleaseId, _: &ReleaseId| None;
        let restart = vec![Step::Restart { release: id(B) }, Step::Check { release: id(B) }];
        for (verb, targets, known, want) in [
            (Verb::Promote, vec![switch(Some(A), B)], true, format!("prod: {a} -> {b}, brings 3 commits; promote?")),
            (Verb::Deploy, vec![switch(Some(A), B)], false, format!("prod: {a} -> {b}; deploy?")),
            (
                Verb::Rollback,
                vec![switch(Some(B), A), switch(Some(B), A)],
                true,
                format!("prod: {b} -> {a}, takes away 3 commits on 2 targets; roll back?"),
            ),
            (
                Verb::Deploy,
                vec![switch(None, B), switch(Some(A), B), vec![]],
                true,
                format!("prod: nothing, {a} -> {b} on 2 targets; deploy?"),
            ),
            (
                Verb::Deploy,
                vec![restart.clone()],
                true,
                format!("prod: restart the service with {B}, check the health of {B}; deploy?"),
            ),
            (
                Verb::Deploy,
                vec![restart.clone(), restart],
                true,
                format!("prod: restart the service with {B}, check the health of {B} on 2 targets; deploy?"),
            ),
        ] {
            let goal = match &targets[0][0] {
                Step::Install { release } | Step::Restart { release } => release.clone(),
                _ => unreachable!("no other plan is here"),
            };
            let targets = targets.into_iter().map(|steps| host("file:srv", steps)).collect();
            let plan = Outcome::planned("prod", verb, Some(goal), targets);
            assert_eq!(question(&plan, if known { &knows } else { &ignorant }), want);
            let failed = Outcome { failed_in: vec!["dev".into()], ..plan };
            let warned = question(&failed, &ignorant);
            assert!(warned.contains(" (it FAILED in dev); "), "{warned}");
        }
    }
}
