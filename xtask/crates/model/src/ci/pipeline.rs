//! The pipeline as one value. Two interpreters read it: [`crate::ci::render`] writes it as YAML for CircleCI, and
//! [`gangplank_local_ci::run`] carries it out on this machine. What is not in the value happens in neither.

use crate::error::{Result, usage};
use std::collections::BTreeMap;

/// Workflows, and the parameters that choose between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// What whoever starts the pipeline may state.
    pub parameters: Vec<Parameter>,
    /// All workflows; several may run for one pipeline.
    pub workflows: Vec<Workflow>,
}

/// A parameter of the pipeline; all are strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it is when nobody states it.
    pub default: String,
}

/// Jobs with what they need of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// When it runs; always without one.
    pub when: Option<Condition>,
    /// In an order in which each job comes after those that it requires.
    pub jobs: Vec<Job>,
}

/// A question to the values of a pipeline. The set is closed: it is written as CircleCI's expression, and answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A parameter has this value.
    Parameter {
        /// Its name.
        name: String,
        /// The value.
        is: String,
    },
    /// The pipeline is for this branch.
    Branch(String),
    /// The Deploys page, which started the pipeline, gave this value.
    Deploy {
        /// Its name below `pipeline.deploy`.
        name: String,
        /// The value.
        is: String,
    },
    /// All of them.
    And(Vec<Condition>),
}

/// A node of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name in the workflow.
    pub name: String,
    /// Name of its definition, which other nodes may share.
    pub definition: String,
    /// Names of the jobs that must succeed first.
    pub requires: Vec<String>,
    /// What must hold for it to run.
    pub filter: Option<Condition>,
    /// Contexts whose variables it gets.
    pub contexts: Vec<String>,
    /// Jobs with the same key never run at the same time, in the whole organisation. An expression of CircleCI.
    pub serial_group: Option<String>,
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
    /// Variables of its own, beside those that every job has. The values may be expressions of CircleCI: here, and
    /// not in a command, where the text of a parameter would be read as shell.
    pub environment: Vec<(String, String)>,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// A step. The set is closed: both interpreters know each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Check out the commit.
    Checkout,
    /// Make the project's ssh keys known to the agent.
    AddSshKeys,
    /// Restore cargo's downloads.
    RestoreCargoCache,
    /// Save cargo's downloads.
    SaveCargoCache,
    /// Run a command of the xtask.
    Xtask {
        /// What the step is called.
        name: String,
        /// Its arguments.
        args: Vec<Arg>,
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

/// An argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// This word.
    Word(String),
    /// The value of this variable of the job, as one word whatever is in it.
    Var(String),
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

/// What a pipeline was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// The branch.
    pub branch: String,
    /// Every parameter.
    pub parameters: BTreeMap<String, String>,
    /// What the Deploys page gave, by the name below `pipeline.deploy`.
    pub deploy: BTreeMap<String, String>,
}

impl Pipeline {
    /// The values of a run for `branch`, with the parameters that were stated.
    pub fn values(&self, branch: &str, stated: &[(String, String)]) -> Result<Values> {
        let mut parameters: BTreeMap<_, _> =
            self.parameters.iter().map(|it| (it.name.clone(), it.default.clone())).collect();
        for (name, value) in stated {
            let Some(parameter) = parameters.get_mut(name) else {
                let known: Vec<_> = self.parameters.iter().map(|it| it.name.as_str()).collect();
                return usage(format!("the pipeline has no parameter `{name}`"))
                    .hint(match known.as_slice() {
                        [] => "this handoff has none: see `handoff` in xtask/src/main.rs".to_owned(),
                        known => format!("use one of: {}", known.join(", ")),
                    })
                    .err();
            };
            parameter.clone_from(value);
        }
        Ok(Values { branch: branch.to_owned(), parameters, deploy: BTreeMap::new() })
    }

    /// The workflows that run with these values, in order.
    pub fn running<'a>(&'a self, values: &Values) -> impl Iterator<Item = &'a Workflow> {
        self.workflows.iter().filter(|workflow| workflow.when.as_ref().is_none_or(|when| when.holds(values)))
    }

    /// Every job with steps, once, in the order in which they first come.
    pub fn definitions(&self) -> Vec<(&str, &Work)> {
        let mut found: Vec<(&str, &Work)> = Vec::new();
        for job in self.workflows.iter().flat_map(|workflow| &workflow.jobs) {
            let Kind::Work(work) = &job.kind else { continue };
            match found.iter().find(|(name, _)| *name == job.definition) {
                Some((name, same)) => assert_eq!(*same, work, "two jobs `{name}` in one pipeline"),
                None => found.push((&job.definition, work)),
            }
        }
        found
    }
}

impl Workflow {
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

impl Job {
    /// A job that is alone with its definition, requires nothing and always runs.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        let name = name.into();
        Self {
            definition: name.clone(),
            name,
            requires: vec![],
            filter: None,
            contexts: vec![],
            serial_group: None,
            kind,
        }
    }
}

impl Condition {
    /// As CircleCI's `when:` and `filters:` read it.
    pub fn expression(&self) -> String {
        match self {
            Self::Parameter { name, is } => format!("pipeline.parameters.{name} == \"{is}\""),
            Self::Branch(is) => format!("pipeline.git.branch == \"{is}\""),
            Self::Deploy { name, is } => format!("pipeline.deploy.{name} == \"{is}\""),
            Self::And(all) => all.iter().map(Self::expression).collect::<Vec<_>>().join(" and "),
        }
    }

    /// Whether it holds.
    pub fn holds(&self, values: &Values) -> bool {
        let has = |known: &BTreeMap<String, String>, name: &str, is: &str| {
            known.get(name).map(String::as_str).unwrap_or_default() == is
        };
        match self {
            Self::Parameter { name, is } => has(&values.parameters, name, is),
            Self::Branch(is) => values.branch == *is,
            Self::Deploy { name, is } => has(&values.deploy, name, is),
            Self::And(all) => all.iter().all(|it| it.holds(values)),
        }
    }
}

impl Values {
    /// Fills in each `<< pipeline.parameters.NAME >>` and `<< pipeline.deploy.NAME >>`, and the branch. Other expressions
    /// stay. What is filled in is not read again.
    pub fn fill(&self, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, (inside, after))) =
            rest.split_once("<<").and_then(|(before, more)| Some((before, more.split_once(">>")?)))
        {
            out.push_str(before);
            let whole = &rest[before.len()..rest.len() - after.len()];
            out.push_str(self.value(inside.trim()).unwrap_or(whole));
            rest = after;
        }
        out + rest
    }

    fn value(&self, name: &str) -> Option<&str> {
        let name = name.strip_prefix("pipeline.")?;
        match name.split_once('.')? {
            ("parameters", name) => self.parameters.get(name).map(String::as_str),
            // CircleCI leaves out what the page did not give.
            ("deploy", name) => Some(self.deploy.get(name).map_or("<nil>", String::as_str)),
            ("git", "branch") => Some(&self.branch),
            _ => None,
        }
    }
}

impl Work {
    /// Its own variables, filled in.
    pub fn variables(&self, values: &Values) -> Vec<(String, String)> {
        self.environment.iter().map(|(name, value)| (name.clone(), values.fill(value))).collect()
    }
}

impl Arg {
    /// The word that a program gets, given the job's own variables.
    pub fn resolve<'a>(&'a self, variables: &'a [(String, String)]) -> &'a str {
        match self {
            Self::Word(word) => word,
            Self::Var(name) => {
                variables.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, is: &str) -> Condition {
        Condition::Parameter { name: name.into(), is: is.into() }
    }

    #[test]
    fn conditions_are_written_and_answered() {
        let mut values = Values { branch: "main".into(), ..Values::default() };
        values.parameters.insert("deploy-env".into(), "prod".into());
        values.deploy.insert("environment_name".into(), "dev".into());
        let main = || Condition::Branch("main".into());
        for (condition, expression, holds) in [
            (parameter("deploy-env", "prod"), "pipeline.parameters.deploy-env == \"prod\"", true),
            (parameter("deploy-env", ""), "pipeline.parameters.deploy-env == \"\"", false),
            (main(), "pipeline.git.branch == \"main\"", true),
            (Condition::Branch("next".into()), "pipeline.git.branch == \"next\"", false),
            (
                Condition::Deploy { name: "environment_name".into(), is: "dev".into() },
                "pipeline.deploy.environment_name == \"dev\"",
                true,
            ),
            (
                Condition::And(vec![parameter("deploy-env", ""), main()]),
                "pipeline.parameters.deploy-env == \"\" and pipeline.git.branch == \"main\"",
                false,
            ),
        ] {
            assert_eq!((condition.expression().as_str(), condition.holds(&values)), (expression, holds));
        }
    }

    #[test]
    fn values_are_filled_in_once() {
        let mut values = Values { branch: "main".into(), ..Values::default() };
        values.parameters.insert("release".into(), "<< pipeline.git.branch >>".into());
        for (text, want) in [
            ("plain << x", "plain << x"),
            ("<< pipeline.parameters.release >>", "<< pipeline.git.branch >>"),
            ("a <<pipeline.git.branch>> b", "a main b"),
            ("<< pipeline.number >>", "<< pipeline.number >>"),
            ("<< pipeline.deploy.reason >>", "<nil>"),
        ] {
            assert_eq!(values.fill(text), want);
        }
        let variables = [("RELEASE".to_owned(), "a b".to_owned())];
        assert_eq!(Arg::Var("RELEASE".into()).resolve(&variables), "a b");
        assert_eq!(Arg::Word("RELEASE".into()).resolve(&variables), "RELEASE");
    }

    #[test]
    fn only_declared_parameters_can_be_stated() {
        let parameters = vec![Parameter { name: "release".into(), default: "HEAD".into() }];
        let pipeline = Pipeline { parameters, workflows: vec![] };
        assert_eq!(pipeline.values("main", &[]).unwrap().parameters["release"], "HEAD");
        let stated = [("release".to_owned(), "abcd".to_owned())];
        assert_eq!(pipeline.values("main", &stated).unwrap().parameters["release"], "abcd");
        let error = pipeline.values("main", &[("relaese".into(), String::new())]).unwrap_err();
        assert_eq!(crate::error::hint_of(&error), Some("use one of: release"));
    }
}
