//! The pipelines of a project: one per [`Handoff`], and the two of CircleCI's Deploys page.

use crate::ci::pipeline::{Arg, Condition, Job, Kind, Parameter, Pipeline, STORED, Step, Work, Workflow, Xtask};
use crate::error::{Result, usage};
use crate::notify::NoticeKind;
use crate::project::{Env, Handoff, Project};
use crate::store_url::{BUCKETS, WORKSPACE, WORKSPACE_URL};

/// The directory of the release report, relative to the checkout.
pub const PAGE_DIR: &str = "target/report";

/// Parameters of triggered workflows.
pub mod parameter {
    /// The env to deploy to.
    pub const DEPLOY_ENV: &str = "deploy-env";
    /// The env to roll back.
    pub const ROLLBACK_ENV: &str = "rollback-env";
    /// The release, as typed.
    pub const RELEASE: &str = "release";
    /// The reason, for the history.
    pub const REASON: &str = "reason";
}

/// The pipeline of a handoff. Fails if the project lacks the store that the handoff needs.
pub fn pipeline(project: &Project, handoff: Handoff) -> Result<Pipeline> {
    match handoff {
        Handoff::Workspace => {}
        Handoff::Artifacts => needs(project, handoff, &["circleci:artifacts"], "circleci:artifacts")?,
        Handoff::S3 => needs(project, handoff, &BUCKETS, "s3://BUCKET/PREFIX")?,
    }
    // Within a workflow every handoff uses the workspace: it needs no token, and contains the program too.
    needs(project, handoff, &[WORKSPACE_URL], WORKSPACE_URL)?;
    if project.ci.launch && project.ci.context.is_none() {
        return usage("`launch` needs `context`: jobs on request find the stored program with its CIRCLE_TOKEN")
            .hint("name the context with CIRCLE_TOKEN in `Ci` of xtask/src/main.rs, or remove `launch: true`")
            .err();
    }
    let others = project.envs.iter().filter_map(|env| env.context).chain(project.ci.context);
    if let Some(context) = others.into_iter().find(|context| Some(*context) == project.ci.sign) {
        return usage(format!("`sign` names the context {context}, which other jobs have too"))
            .hint("give the key a context of its own: a job that compiles could read it")
            .err();
    }
    if project.ci.sign.is_some() && handoff == Handoff::Artifacts {
        return usage(
            "`sign` and the handoff `artifacts`: the job that stores a release runs on every branch, and compiles",
        )
        .hint("choose the handoff workspace or s3, whose job that signs runs on one branch and compiles nothing")
        .err();
    }
    Ok(match handoff {
        Handoff::Workspace => workspace(project),
        Handoff::Artifacts | Handoff::S3 => across_workflows(project, handoff),
    })
}

/// Whether jobs of the pipeline ask CircleCI's API: to pass releases on, or to find a stored program.
pub fn uses_api(project: &Project, handoff: Handoff) -> bool {
    let asks = || has_store(project, &["circleci:artifacts", "circleci:latest-artifacts"]);
    handoff == Handoff::Artifacts || project.ci.launch || (handoff == Handoff::S3 && asks())
}

fn needs(project: &Project, handoff: Handoff, any_of: &[&str], like: &str) -> Result<()> {
    if has_store(project, any_of) {
        return Ok(());
    }
    let (handoff, by) = (handoff.as_str(), any_of.join(" or "));
    usage(format!("handoff `{handoff}` needs the store {by}, which this project lacks"))
        .hint(format!("add \"{like}\" to `stores` in xtask/src/main.rs, or choose another handoff"))
        .err()
}

fn has_store(project: &Project, any_of: &[&str]) -> bool {
    project.stores.iter().any(|store| any_of.iter().any(|one| store.starts_with(one)))
}

/// One workflow: check, build, then each env in order, after its approval if needed.
fn workspace(project: &Project) -> Pipeline {
    let first: Vec<_> = project.envs.iter().take(1).filter(|env| env.approval).collect();
    let mut jobs = vec![check(project), with_steps(build(project, Handoff::Workspace), ask_for_approvals(&first))];
    let mut after = "build".to_owned();
    if let Some(job) = sign(project) {
        after.clone_from(&job.name);
        jobs.push(job);
    }
    for (n, env) in project.envs.iter().enumerate() {
        if env.approval {
            let approve = Job { requires: vec![after.clone()], filter: Some(on_branch(project)), ..approve(env) };
            after.clone_from(&approve.name);
            jobs.push(approve);
        }
        // The job before an approval reports what it is about.
        let next = project.envs.get(n + 1).filter(|next| next.approval);
        let deploy = Job { requires: vec![after.clone()], ..deploy_from_workspace(project, env, next.as_slice()) };
        after.clone_from(&deploy.name);
        jobs.push(deploy);
    }
    Pipeline { parameters: vec![], workflows: vec![Workflow { name: "build-deploy".into(), when: None, jobs }] }
}

/// Workflows that use a store: build and deploy without approval, a workflow per approval, and per env one to deploy
/// and one to roll back on request.
fn across_workflows(project: &Project, handoff: Handoff) -> Pipeline {
    let free: Vec<_> = project.envs.iter().filter(|env| !env.approval).collect();
    let approved: Vec<_> = project.envs.iter().filter(|env| env.approval).collect();
    let last: &[_] = if free.is_empty() { &approved } else { &[] };
    let publish = with_steps(publish(project, handoff), ask_for_approvals(last));
    let mut jobs = vec![check(project), build(project, handoff)];
    jobs.extend(sign(project));
    jobs.push(publish);
    let mut after = "publish".to_owned();
    for (n, env) in free.iter().enumerate() {
        // The last job of the workflow reports what the approvals in the others are about.
        let next: &[_] = if n + 1 == free.len() { &approved } else { &[] };
        let deploy = Job { requires: vec![after.clone()], ..deploy_from_workspace(project, env, next) };
        after.clone_from(&deploy.name);
        jobs.push(deploy);
    }
    let name = match free.as_slice() {
        [] => "build".to_owned(),
        free => format!("build-deploy-{}", free.iter().map(|env| env.name).collect::<Vec<_>>().join("-")),
    };
    let skipped = || vec![is(parameter::DEPLOY_ENV, ""), is(parameter::ROLLBACK_ENV, "")];
    let mut workflows = vec![Workflow { name, when: Some(Condition::And(skipped())), jobs }];
    for env in approved {
        let approve = approve(env);
        let deploy = Job { requires: vec![approve.name.clone()], ..deploy_from_store(project, env) };
        // The branch is a condition of the workflow, so that a pending approval is not shown on every branch.
        let when = skipped().into_iter().chain([on_branch(project)]).collect();
        workflows.push(Workflow {
            name: format!("deploy-{}-on-approval", env.name),
            when: Some(Condition::And(when)),
            jobs: vec![approve, deploy],
        });
    }
    for env in project.envs {
        workflows.push(Workflow {
            name: format!("deploy-{}", env.name),
            when: Some(is(parameter::DEPLOY_ENV, env.name)),
            jobs: vec![deploy_from_store(project, env)],
        });
    }
    for env in project.envs {
        workflows.push(Workflow {
            name: format!("rollback-{}", env.name),
            when: Some(is(parameter::ROLLBACK_ENV, env.name)),
            jobs: vec![rollback(project, env)],
        });
    }
    let parameters = [
        (parameter::DEPLOY_ENV, ""),
        (parameter::ROLLBACK_ENV, ""),
        (parameter::RELEASE, "HEAD"),
        (parameter::REASON, ""),
    ];
    let parameters = parameters.map(|(name, default)| Parameter { name: name.into(), default: default.into() }).into();
    Pipeline { parameters, workflows }
}

/// The pipeline of the Deploys page's Rollback button.
pub fn rollback_page(project: &Project) -> Pipeline {
    page(project, "rollback", "Roll back", "environment_name")
}

/// The pipeline of the Deploys page's Deploy and Promote buttons.
pub fn deploy_page(project: &Project) -> Pipeline {
    page(project, "deploy", "Deploy", "target_environment_name")
}

/// One definition, and a job of it per env: only a job has contexts and a serial group.
fn page(project: &Project, verb: &str, title: &str, environment: &str) -> Pipeline {
    let value = |name: &str| format!("<< pipeline.deploy.{name} >>");
    let environment_of = [
        ("ENVIRONMENT", environment),
        ("TARGET_VERSION", "target_version"),
        ("CURRENT_VERSION", "current_version"),
        ("REASON", "reason"),
    ];
    let args = [word(verb), var("ENVIRONMENT"), word("--expect-current"), var("CURRENT_VERSION")].to_vec();
    let work = Kind::Work(Work {
        environment: environment_of.map(|(name, from)| (name.to_owned(), value(from))).into(),
        ..compiling(project, to_hosts(project, changing(project, title, args, "TARGET_VERSION")))
    });
    let node = |env: &Env| Job {
        definition: verb.to_owned(),
        filter: Some(Condition::Deploy { name: environment.to_owned(), is: env.name.to_owned() }),
        ..on_env(project, env, Job::new(format!("{verb}-{}", env.name), work.clone()))
    };
    let jobs = project.envs.iter().map(node).collect();
    Pipeline { parameters: vec![], workflows: vec![Workflow { name: verb.to_owned(), when: None, jobs }] }
}

fn is(parameter: &str, value: &str) -> Condition {
    Condition::Parameter { name: parameter.into(), is: value.into() }
}

fn on_branch(project: &Project) -> Condition {
    Condition::Branch(project.ci.branch.to_owned())
}

fn check(project: &Project) -> Job {
    let mut steps = vec![
        Step::Checkout,
        // Reports setup problems before the build spends minutes.
        cargo("Doctor", &["doctor", "--ci"]),
        // The jobs after this one compile no xtask. Only this workflow reads its workspace, so no other branch can pass
        // them another program, as it could in a cache. Passed on before the code of the tests runs.
        cargo("Pass the xtask to the jobs after this one", &["put", "--program"]),
        Step::Persist { root: WORKSPACE.into(), paths: vec!["bin".into()] },
    ];
    // Jobs on request get no workspace. They take it from a pipeline of the deployed branch only.
    if project.ci.launch {
        steps.push(Step::StoreArtifacts { path: format!("{WORKSPACE}/{STORED}"), destination: STORED.into() });
    }
    steps.push(cargo("Check", &["test", "--quick"]));
    Job::new("check", Kind::Work(compiling(project, steps)))
}

fn build(project: &Project, handoff: Handoff) -> Job {
    // This job has no credentials; a later job uploads to the bucket.
    let put: &[&str] = if handoff == Handoff::S3 { &["put", "--store", WORKSPACE_URL] } else { &["put"] };
    let mut steps = vec![
        Step::Checkout,
        Step::Attach { at: WORKSPACE.into() },
        persisted("Build", &["build"]),
        persisted("Pass the release to the deploy jobs", put),
        Step::Persist { root: WORKSPACE.into(), paths: vec!["releases".into()] },
    ];
    // A bucket may fall back to artifacts.
    if handoff != Handoff::S3 || has_store(project, &["circleci:artifacts"]) {
        steps.push(Step::StoreArtifacts { path: format!("{WORKSPACE}/releases"), destination: "releases".into() });
    }
    Job { requires: vec!["check".into()], ..Job::new("build", Kind::Work(compiling(project, steps))) }
}

/// Signs the release in the workspace. A job of its own: where code is compiled, its build scripts could read the key.
fn sign(project: &Project) -> Option<Job> {
    let context = project.ci.sign?;
    let steps = vec![
        persisted("Sign the release", &["sign"]),
        Step::Persist { root: WORKSPACE.into(), paths: vec!["releases".into()] },
    ];
    Some(Job {
        requires: vec!["build".into()],
        filter: Some(on_branch(project)),
        contexts: vec![context.to_owned()],
        ..Job::new("sign", Kind::Work(on_workspace(project, steps)))
    })
}

/// Makes a build available to other workflows: stores it, and points the branch's variable at it.
fn publish(project: &Project, handoff: Handoff) -> Job {
    let put: (&str, &[&str]) = match handoff {
        Handoff::S3 => ("Put into the stores", &["put"]),
        Handoff::Workspace | Handoff::Artifacts => ("Verify the artifacts", &["verify", "--store"]),
    };
    let steps = [put, ("Point to this build", &["publish"])].map(|(name, args)| persisted(name, args));
    Job {
        requires: vec![if project.ci.sign.is_some() { "sign" } else { "build" }.into()],
        filter: Some(on_branch(project)),
        contexts: project.ci.context.iter().map(|context| (*context).to_owned()).collect(),
        ..Job::new("publish", Kind::Work(on_workspace(project, steps.into())))
    }
}

fn with_steps(mut job: Job, more: impl Iterator<Item = Step>) -> Job {
    if let Kind::Work(work) = &mut job.kind {
        work.steps.extend(more);
    }
    job
}

fn approve(env: &Env) -> Job {
    Job::new(format!("approve-{}", env.name), Kind::Approval)
}

/// Deploys the build of this workflow, and reports what a deploy to the `next` envs would change.
fn deploy_from_workspace(project: &Project, env: &Env, next: &[&Env]) -> Job {
    let args = ["deploy", env.name, "--yes", "--lock-wait", "600"];
    let mut steps = vec![persisted(&format!("Deploy to {}", env.name), &args)];
    steps.extend(ask_for_approvals(next));
    steps.extend(report(project, word(env.name), next, Xtask::Persisted));
    Job {
        filter: Some(on_branch(project)),
        contexts: env.context.iter().map(|context| (*context).to_owned()).collect(),
        serial_group: Some(serial_group(env)),
        ..Job::new(format!("deploy-{}", env.name), Kind::Work(on_workspace(project, steps)))
    }
}

/// Notifies the recipients of these envs that their approval is wanted.
fn ask_for_approvals<'a>(envs: &'a [&'a Env]) -> impl Iterator<Item = Step> + 'a {
    let wanted = |it: &&&Env| it.notify.iter().any(|recipient| recipient.wants(NoticeKind::ApprovalWanted));
    let ask = |env: &&Env| persisted(&format!("Ask for the approval of {}", env.name), &["notify", env.name]);
    envs.iter().filter(wanted).map(ask)
}

/// Writes the release report, and keeps it as an artifact. After a failed deploy it is wanted most.
fn report(project: &Project, env: Arg, next: &[&Env], by: Xtask) -> Vec<Step> {
    if !project.ci.report {
        return vec![];
    }
    let diffs = next.iter().flat_map(|env| [word("--diff"), word(env.name)]);
    let args = [word("report"), env].into_iter().chain(diffs).collect();
    vec![
        Step::Xtask { name: "Write the release report".into(), args, by, always: true },
        Step::StoreArtifacts { path: PAGE_DIR.into(), destination: "report".into() },
    ]
}

/// Deploys the release named by the parameters, by default that of this commit, from a store.
fn deploy_from_store(project: &Project, env: &Env) -> Job {
    let on_request = if env.approval { "" } else { "-on-request" };
    let args = vec![word("deploy"), word(env.name)];
    let steps = changing(project, &format!("Deploy to {}", env.name), args, "RELEASE");
    requested(project, env, &format!("deploy-{}{on_request}", env.name), steps)
}

fn rollback(project: &Project, env: &Env) -> Job {
    let args = vec![word("rollback"), word(env.name)];
    let steps = changing(project, &format!("Roll back {}", env.name), args, "RELEASE");
    requested(project, env, &format!("rollback-{}", env.name), steps)
}

/// A workspace does not cross workflows, so the job launches a stored xtask or compiles one.
fn requested(project: &Project, env: &Env, name: &str, steps: Vec<Step>) -> Job {
    let environment = [("RELEASE", parameter::RELEASE), ("REASON", parameter::REASON)]
        .map(|(name, from)| (name.to_owned(), format!("<< pipeline.parameters.{from} >>")));
    let work = Work { environment: environment.into(), ..compiling(project, to_hosts(project, steps)) };
    Job { filter: Some(on_branch(project)), ..on_env(project, env, Job::new(name, Kind::Work(work))) }
}

/// Adds the secrets of an env and of the API, and a key shared by deploys and rollbacks of the env.
fn on_env(project: &Project, env: &Env, job: Job) -> Job {
    let contexts = env.context.into_iter().chain(project.ci.context).map(str::to_owned);
    Job { contexts: contexts.collect(), serial_group: Some(serial_group(env)), ..job }
}

fn serial_group(env: &Env) -> String {
    format!("<< pipeline.project.slug >>/deploy-{}", env.name)
}

/// A step that changes an env, the second of `args`, and the report. The release comes after `--`, so that it is never
/// parsed as an option.
fn changing(project: &Project, name: &str, mut args: Vec<Arg>, release: &str) -> Vec<Step> {
    let env = args[1].clone();
    args.extend([word("--reason"), var("REASON"), word("--yes"), word("--lock-wait"), word("600"), word("--")]);
    args.push(var(release));
    let by = if project.ci.launch { Xtask::Launched } else { Xtask::Cargo };
    let change = Step::Xtask { name: name.into(), args, by, always: false };
    std::iter::once(change).chain(report(project, env, &[], by)).collect()
}

fn word(text: &str) -> Arg {
    Arg::Word(text.into())
}

fn var(name: &str) -> Arg {
    Arg::Var(name.into())
}

fn cargo(name: &str, args: &[&str]) -> Step {
    Step::Xtask { name: name.into(), args: args.iter().map(|arg| word(arg)).collect(), by: Xtask::Cargo, always: false }
}

fn persisted(name: &str, args: &[&str]) -> Step {
    Step::Xtask {
        name: name.into(),
        args: args.iter().map(|arg| word(arg)).collect(),
        by: Xtask::Persisted,
        always: false,
    }
}

/// A job that compiles. It restores no cache: cargo does not verify the crates of a cache again, and a job of any branch
/// can write what a job with secrets would restore. Crates come from crates.io, checked against Cargo.lock.
fn compiling(project: &Project, steps: Vec<Step>) -> Work {
    Work {
        image: project.ci.rust_image.to_owned(),
        resource_class: project.ci.resource_class.to_owned(),
        environment: vec![],
        steps,
    }
}

/// The steps of a deploy job, with ssh keys if any target needs them.
fn to_hosts(project: &Project, steps: Vec<Step>) -> Vec<Step> {
    let mut all = vec![Step::Checkout];
    if project.envs.iter().flat_map(|env| env.targets).any(|target| target.starts_with("ssh:")) {
        all.push(Step::AddSshKeys);
    }
    all.extend(steps);
    all
}

fn on_workspace(project: &Project, steps: Vec<Step>) -> Work {
    let before = to_hosts(project, vec![Step::Attach { at: WORKSPACE.into() }]);
    Work {
        image: project.ci.deploy_image.to_owned(),
        resource_class: "small".into(),
        environment: vec![],
        steps: before.into_iter().chain(steps).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hint_of;
    use crate::project::{App, Ci, Health, Service};

    const fn env(name: &'static str, approval: bool) -> Env {
        Env {
            name,
            targets: &["file:srv"],
            vars: &[],
            service: Service::None,
            health: Health::NONE,
            keep: 2,
            approval,
            ..Env::DEFAULT
        }
    }

    const ENVS: &[Env] = &[env("dev", false), env("qa", false), env("prod", true)];

    fn project(stores: &'static [&'static str], envs: &'static [Env]) -> Project {
        Project { app: App { name: "shop", ..App::DEFAULT }, stores, envs, ci: Ci::DEFAULT }
    }

    const STORES: &[&str] = &["circleci:workspace", "circleci:artifacts", "s3://bucket/shop"];

    /// The workflows and jobs that run with these values.
    fn running(pipeline: &Pipeline, branch: &str, stated: &[(&str, &str)]) -> String {
        let stated: Vec<_> = stated.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let values = pipeline.values(branch, &stated).unwrap();
        let runs = |job: &&Job| job.filter.as_ref().is_none_or(|filter| filter.holds(&values));
        let workflow = |it: &Workflow| {
            let jobs: Vec<_> = it.jobs.iter().filter(runs).map(|job| job.name.as_str()).collect();
            format!("{}: {}", it.name, jobs.join(" "))
        };
        pipeline.running(&values).map(workflow).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn workflows_run_by_branch_and_parameters() {
        let pipeline = pipeline(&project(STORES, ENVS), Handoff::Artifacts).unwrap();
        for (branch, stated, want) in [
            (
                "main",
                &[][..],
                "build-deploy-dev-qa: check build publish deploy-dev deploy-qa; deploy-prod-on-approval: approve-prod deploy-prod",
            ),
            ("feature", &[], "build-deploy-dev-qa: check build"),
            ("main", &[("deploy-env", "prod")], "deploy-prod: deploy-prod"),
            ("main", &[("deploy-env", "dev"), ("release", "abcd")], "deploy-dev: deploy-dev-on-request"),
            ("main", &[("rollback-env", "prod")], "rollback-prod: rollback-prod"),
            ("feature", &[("rollback-env", "prod")], "rollback-prod: "),
            ("main", &[("deploy-env", "stage")], ""),
        ] {
            assert_eq!(running(&pipeline, branch, stated), want, "{branch} {stated:?}");
        }
    }

    #[test]
    fn jobs_of_each_env_share_its_serial_group() {
        for handoff in Handoff::ALL {
            let pipeline = pipeline(&project(STORES, ENVS), handoff).unwrap();
            assert!(pipeline.definitions().len() >= 5, "it asserts that no two differ");
            for job in pipeline.workflows.iter().flat_map(|workflow| &workflow.jobs) {
                let touches = |env: &&Env| job.kind != Kind::Approval && job.name.contains(&format!("-{}", env.name));
                let key = ENVS.iter().find(touches).map(serial_group);
                assert_eq!(job.serial_group, key, "{}", job.name);
            }
        }
    }

    #[test]
    fn workflows_where_each_env_needs_approval_build_without_deploy() {
        let only: &[Env] = &[env("prod", true)];
        let pipeline = pipeline(&project(STORES, Box::leak(only.into())), Handoff::S3).unwrap();
        let names: Vec<_> = pipeline.workflows.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["build", "deploy-prod-on-approval", "deploy-prod", "rollback-prod"]);
    }

    #[test]
    fn launch_without_a_context_for_the_token_is_refused() {
        let with = |context| {
            let ci = Ci { launch: true, context, ..Ci::DEFAULT };
            pipeline(&Project { ci, ..project(STORES, ENVS) }, Handoff::Artifacts)
        };
        assert!(hint_of(&with(None).unwrap_err()).unwrap().contains("CIRCLE_TOKEN"));
        let pipeline = with(Some("shop-circleci")).unwrap();
        for job in pipeline.workflows.iter().flat_map(|workflow| &workflow.jobs) {
            let Kind::Work(work) = &job.kind else { continue };
            let launches = work.steps.iter().any(|step| matches!(step, Step::Xtask { by: Xtask::Launched, .. }));
            assert!(!launches || job.contexts.iter().any(|it| it == "shop-circleci"), "{}", job.name);
        }
    }

    #[test]
    fn pipeline_of_handoff_without_its_store_is_refused() {
        for (handoff, store) in Handoff::ALL.into_iter().zip(STORES) {
            let others: Vec<_> = STORES.iter().copied().filter(|other| other != store).collect();
            let error = pipeline(&project(others.leak(), ENVS), handoff).unwrap_err();
            let scheme = store.split("//").next().unwrap();
            assert!(hint_of(&error).unwrap().contains(scheme), "{error:#}");
            let enough: &[&str] = Box::leak(Box::new(["circleci:workspace", *store]));
            assert!(pipeline(&project(enough, ENVS), handoff).is_ok());
        }
    }
}
