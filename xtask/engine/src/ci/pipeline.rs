//! The pipeline as one value. Two interpreters read it: [`crate::ci::render`] writes it as YAML for CircleCI, and
//! [`crate::ci::run`] carries it out on this machine. What is not in the value happens in neither.

use crate::project::Project;
use crate::store::WORKSPACE;

/// Jobs with what they need of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Name of the workflow.
    pub workflow: String,
    /// In an order in which each job comes after those that it requires.
    pub jobs: Vec<Job>,
}

/// A node of the workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Names of the jobs that must succeed first.
    pub requires: Vec<String>,
    /// The only branch that it runs for.
    pub branch: Option<String>,
    /// What it does.
    pub kind: Kind,
}

/// What a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A person says yes.
    Approval,
    /// Steps on a machine.
    Work(Work),
}

/// A job with steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Docker image.
    pub image: String,
    /// CircleCI's resource class.
    pub resource_class: String,
    /// Jobs with the same key never run at the same time, in the whole organisation. An expression of CircleCI.
    pub serial_group: Option<String>,
    /// Contexts whose variables it gets.
    pub contexts: Vec<String>,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// A step. The set is closed: both interpreters know each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Check out the commit.
    Checkout,
    /// Restore cargo's downloads.
    RestoreCargoCache,
    /// Save cargo's downloads.
    SaveCargoCache,
    /// Run a command of the xtask.
    Xtask {
        /// What the step is called.
        name: String,
        /// Its arguments.
        args: Vec<String>,
        /// Which program runs them.
        by: Xtask,
    },
    /// Add files to the workspace.
    Persist {
        /// The absolute directory.
        root: String,
        /// Paths below it.
        paths: Vec<String>,
    },
    /// Get the files of all required jobs.
    Attach {
        /// The absolute directory.
        at: String,
    },
    /// Keep a directory where people can download it.
    StoreArtifacts {
        /// Path of the directory.
        path: String,
        /// Its name in the list of artifacts.
        destination: String,
    },
}

/// Which program runs an xtask step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xtask {
    /// `cargo xtask`, compiled in the job.
    Cargo,
    /// The program that the build job persisted: no Rust, no compiling.
    Persisted,
}

/// Path of the persisted program, relative to the workspace.
pub const PERSISTED: &str = "bin/xtask";

/// The single-workflow pipeline: check, build, then each env in order, behind an approval where it asks for one.
pub fn workspace(project: &Project) -> Pipeline {
    let ci = &project.ci;
    let mut jobs = vec![check(project), build(project)];
    let mut after = "build".to_owned();
    for env in project.envs {
        let branch = Some(ci.branch.to_owned());
        if env.approval {
            let name = format!("approve-{}", env.name);
            jobs.push(Job {
                name: name.clone(),
                requires: vec![after.clone()],
                branch: branch.clone(),
                kind: Kind::Approval,
            });
            after = name;
        }
        let name = format!("deploy-{}", env.name);
        let requires = vec![after.clone()];
        let args = ["deploy", env.name, "--yes", "--lock-wait", "600"].map(str::to_owned).to_vec();
        let kind = Kind::Work(Work {
            image: ci.deploy_image.to_owned(),
            resource_class: "small".into(),
            serial_group: Some(format!("<< pipeline.project.slug >>/deploy-{}", env.name)),
            contexts: env.context.iter().map(|context| (*context).to_owned()).collect(),
            steps: vec![
                Step::Checkout,
                Step::Attach { at: WORKSPACE.into() },
                Step::Xtask { name: format!("Deploy to {}", env.name), args, by: Xtask::Persisted },
            ],
        });
        jobs.push(Job { name: name.clone(), requires, branch, kind });
        after = name;
    }
    Pipeline { workflow: "build-deploy".into(), jobs }
}

fn check(project: &Project) -> Job {
    let steps =
        vec![Step::Checkout, Step::RestoreCargoCache, xtask("Check", &["test", "--quick"]), Step::SaveCargoCache];
    Job { name: "check".into(), requires: vec![], branch: None, kind: compiling(project, steps) }
}

fn build(project: &Project) -> Job {
    let steps = vec![
        Step::Checkout,
        Step::RestoreCargoCache,
        xtask("Build", &["build"]),
        xtask("Hand over to the deploy jobs", &["put"]),
        Step::Persist { root: WORKSPACE.into(), paths: vec!["releases".into(), "bin".into()] },
        Step::StoreArtifacts { path: format!("{WORKSPACE}/releases"), destination: "releases".into() },
    ];
    Job { name: "build".into(), requires: vec!["check".into()], branch: None, kind: compiling(project, steps) }
}

fn xtask(name: &str, args: &[&str]) -> Step {
    Step::Xtask { name: name.into(), args: args.iter().map(|arg| (*arg).to_owned()).collect(), by: Xtask::Cargo }
}

fn compiling(project: &Project, steps: Vec<Step>) -> Kind {
    Kind::Work(Work {
        image: project.ci.rust_image.to_owned(),
        resource_class: project.ci.resource_class.to_owned(),
        serial_group: None,
        contexts: vec![],
        steps,
    })
}

impl Pipeline {
    /// The job of that name.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// Every job that must have succeeded before `name`, directly or not, in order.
    pub fn ancestors(&self, name: &str) -> Vec<&Job> {
        let mut needed: Vec<&str> =
            self.job(name).map(|job| job.requires.iter().map(String::as_str).collect()).unwrap_or_default();
        let mut found: Vec<&str> = Vec::new();
        while let Some(next) = needed.pop() {
            if !found.contains(&next) {
                found.push(next);
                needed.extend(self.job(next).into_iter().flat_map(|job| job.requires.iter().map(String::as_str)));
            }
        }
        self.jobs.iter().filter(|job| found.contains(&job.name.as_str())).collect()
    }
}
