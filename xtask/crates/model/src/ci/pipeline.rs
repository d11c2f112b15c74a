//! The pipeline as one value with two interpreters: [`crate::ci::render`] writes it as YAML for CircleCI, and
//! `gangplank_local_ci::run` executes it on this machine.

use crate::error::{Result, usage};
use std::collections::BTreeMap;

/// Workflows and their parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// The parameters that a trigger may set.
    pub parameters: Vec<Parameter>,
    /// All workflows; several may run for one pipeline.
    pub workflows: Vec<Workflow>,
}

/// A pipeline parameter of type string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The default.
    pub default: String,
}

/// Jobs and their dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// The condition to run; `None` for always.
    pub when: Option<Condition>,
    /// In topological order.
    pub jobs: Vec<Job>,
}

/// A condition on the values of a pipeline, written as CircleCI's expression and evaluated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A parameter has this value.
    Parameter {
        /// Its name.
        name: String,
        /// The value.
        is: String,
    },
    /// The pipeline runs for this branch.
    Branch(String),
    /// The Deploys page passed this value.
    Deploy {
        /// The name below `pipeline.deploy`.
        name: String,
        /// The value.
        is: String,
    },
    /// All of them.
    And(Vec<Condition>),
}

/// A job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name in the workflow.
    pub name: String,
    /// Name of its definition, which other jobs may share.
    pub definition: String,
    /// Names of the jobs that must succeed first.
    pub requires: Vec<String>,
    /// The condition to run.
    pub filter: Option<Condition>,
    /// Contexts whose variables it gets.
    pub contexts: Vec<String>,
    /// The CircleCI expression of a key: jobs with the same key never run concurrently, in the whole organisation.
    pub serial_group: Option<String>,
    /// The kind of job.
    pub kind: Kind,
}

/// The kind of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Waits for a person's approval.
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
    /// Additional variables. Values may be CircleCI expressions; those belong here, not in a command, where a shell
    /// would interpret the text of a parameter.
    pub environment: Vec<(String, String)>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A step. Both interpreters support all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Check out the commit.
    Checkout,
    /// Add the project's ssh keys to the agent.
    AddSshKeys,
    /// Run a command of the xtask.
    Xtask {
        /// The name of the step.
        name: String,
        /// Its arguments.
        args: Vec<Arg>,
        /// The program that runs them.
        by: Xtask,
        /// Whether it runs even if a step before it failed.
        always: bool,
    },
    /// Add files to the workspace.
    Persist {
        /// The absolute directory.
        root: String,
        /// Paths below it.
        paths: Vec<String>,
    },
    /// Get the files persisted by all required jobs.
    Attach {
        /// The absolute directory.
        at: String,
    },
    /// Store a directory as artifacts, even if a step before it failed.
    StoreArtifacts {
        /// Path of the directory; a relative one is below the checkout.
        path: String,
        /// Its name in the list of artifacts.
        destination: String,
    },
}

/// An argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// A literal word.
    Word(String),
    /// The value of this variable of the job, as a single word.
    Var(String),
}

/// The program of an xtask step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xtask {
    /// `cargo xtask`, compiled in the job.
    Cargo,
    /// The program persisted by the job `check`, which needs no Rust.
    Persisted,
    /// The program that the job `check` of another pipeline stored, else `cargo xtask`.
    Launched,
}

/// Path of the persisted program, relative to the workspace.
pub const PERSISTED: &str = "bin/xtask";
/// Directory of the program that is stored for jobs on request, relative to the workspace, and its artifact's name.
pub const STORED: &str = "program";
/// The manifest of the crate that runs it.
pub const LAUNCHER: &str = "xtask/crates/launch/Cargo.toml";

/// The values of a pipeline run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// The branch.
    pub branch: String,
    /// Every parameter.
    pub parameters: BTreeMap<String, String>,
    /// The values of the Deploys page, by the name below `pipeline.deploy`.
    pub deploy: BTreeMap<String, String>,
}

impl Pipeline {
    /// The values of a run for `branch`, with the given parameters.
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

    /// Every distinct job with steps, in order of first use.
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

    /// The transitive dependencies of a job, in order.
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
    /// A job with its own definition, no requirements and no condition.
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
    /// CircleCI's expression for `when:` and `filters:`.
    pub fn expression(&self) -> String {
        match self {
            Self::Parameter { name, is } => format!("pipeline.parameters.{name} == \"{is}\""),
            Self::Branch(is) => format!("pipeline.git.branch == \"{is}\""),
            Self::Deploy { name, is } => format!("pipeline.deploy.{name} == \"{is}\""),
            Self::And(all) => all.iter().map(Self::expression).collect::<Vec<_>>().join(" and "),
        }
    }

    /// Whether it is true.
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
    /// Expands `<< pipeline.parameters.NAME >>`, `<< pipeline.deploy.NAME >>` and the branch, once. Other expressions
    /// stay.
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
            // CircleCI renders a missing value like this.
            ("deploy", name) => Some(self.deploy.get(name).map_or("<nil>", String::as_str)),
            ("git", "branch") => Some(&self.branch),
            _ => None,
        }
    }
}

impl Work {
    /// The additional variables, expanded.
    pub fn variables(&self, values: &Values) -> Vec<(String, String)> {
        self.environment.iter().map(|(name, value)| (name.clone(), values.fill(value))).collect()
    }
}

impl Arg {
    /// The word passed to the program, given the job's variables.
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
    fn values_with_undeclared_parameter_are_refused() {
        let parameters = vec![Parameter { name: "release".into(), default: "HEAD".into() }];
        let pipeline = Pipeline { parameters, workflows: vec![] };
        assert_eq!(pipeline.values("main", &[]).unwrap().parameters["release"], "HEAD");
        let stated = [("release".to_owned(), "abcd".to_owned())];
        assert_eq!(pipeline.values("main", &stated).unwrap().parameters["release"], "abcd");
        let error = pipeline.values("main", &[("relaese".into(), String::new())]).unwrap_err();
        assert_eq!(crate::error::hint_of(&error), Some("use one of: release"));
    }
}
