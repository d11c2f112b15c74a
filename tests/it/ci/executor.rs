//! The generated YAML under another executor than ours: it knows CircleCI's documentation and nothing of the engine. It
//! reads the file, runs each command with `bash -eo pipefail`, carries workspaces and artifacts, and serves the API.

use crate::account::{Account, TOKEN};
use crate::project::Project;
use gangplank_loopback::JobStatus;
use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// YAML as JSON, which is all that a config needs. Every scalar is a text.
pub fn yaml(text: &str) -> Value {
    enum Open {
        Seq(Vec<Value>),
        Map(Map<String, Value>, Option<String>),
    }
    let (mut stack, mut done) = (Vec::new(), Value::Null);
    for event in Parser::new_from_str(text) {
        let value = match event.unwrap().0 {
            Event::SequenceStart(..) => {
                stack.push(Open::Seq(vec![]));
                continue;
            }
            Event::MappingStart(..) => {
                stack.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::Scalar(text, ..) => Value::from(text.into_owned()),
            Event::SequenceEnd | Event::MappingEnd => match stack.pop().unwrap() {
                Open::Seq(items) => Value::from(items),
                Open::Map(map, _) => Value::from(map),
            },
            _ => continue,
        };
        match stack.last_mut() {
            None => done = value,
            Some(Open::Seq(items)) => items.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                None => *key = Some(value.as_str().unwrap().to_owned()),
                Some(name) => drop(map.insert(name, value)),
            },
        }
    }
    done
}

/// One pipeline that runs.
struct Pipeline<'a> {
    p: &'a Project,
    account: &'a Account,
    config: Value,
    id: String,
    parameters: Map<String, Value>,
    /// Stands for the machines: no two jobs share one.
    machines: PathBuf,
}

impl<'a> Pipeline<'a> {
    fn start(p: &'a Project, account: &'a Account, stated: &[(&str, &str)]) -> Self {
        let config = yaml(&p.read(".circleci/config.yml"));
        let sha = p.git(&["rev-parse", "HEAD"]);
        let mut state = account.server.state();
        let now = state.now();
        let id = state.push("main", &sha, now);
        let machines = p.path(&format!("target/machines-{}", state.pipelines.len()));
        drop(state);
        let declared = config["parameters"].as_object().unwrap().iter();
        let mut parameters: Map<String, Value> =
            declared.map(|(name, it)| (name.clone(), it["default"].clone())).collect();
        parameters.extend(stated.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
        Self { p, account, config, id, parameters, machines }
    }

    fn value(&self, name: &str) -> String {
        match name {
            "pipeline.number" => self.account.server.state().pipeline(&self.id).unwrap().number.to_string(),
            "pipeline.project.slug" => self.account.server.state().slug.clone(),
            "pipeline.git.branch" => "main".into(),
            other => {
                let parameter = other.strip_prefix("pipeline.parameters.").unwrap_or_else(|| panic!("{other}"));
                let text = self.parameters[parameter].as_str().unwrap();
                text.to_owned()
            }
        }
    }

    /// `a == "b" and c == "d"`, of which our configs are made.
    fn holds(&self, expression: &Value) -> bool {
        let Some(text) = expression.as_str() else { return true };
        text.split(" and ").all(|part| {
            let (name, want) = part.split_once(" == ").unwrap();
            self.value(name.trim()) == want.trim().trim_matches('"')
        })
    }

    fn fill(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("<<") {
            let (name, after) = after.split_once(">>").unwrap();
            let value = self.value(name.trim());
            // CircleCI's rendering of nothing, in an environment.
            out = out + before + if value.is_empty() { "<nil>" } else { &value };
            rest = after;
        }
        out + rest
    }

    /// Runs one workflow to its end, approvals given at once. Gives the jobs that ran, with their status.
    fn workflow(&self, name: &str) -> Vec<String> {
        let workflow = &self.config["workflows"][name];
        assert!(self.holds(&workflow["when"]), "{name} does not run");
        let mut ended: Vec<(String, bool)> = Vec::new();
        for node in workflow["jobs"].as_array().unwrap() {
            let (job, node) = match node {
                Value::String(job) => (job, &Value::Null),
                other => other.as_object().unwrap().iter().next().unwrap(),
            };
            let requires = node["requires"].as_array().cloned().unwrap_or_default();
            let ready = requires.iter().all(|it| ended.iter().any(|(job, ok)| *ok && it == job.as_str()));
            if !ready || !self.holds(&node["filters"]) {
                continue;
            }
            let ok = node["type"] == "approval" || self.job(name, job, node, &ended);
            ended.push((job.clone(), ok));
        }
        ended.into_iter().map(|(job, ok)| format!("{job} {}", if ok { "success" } else { "failed" })).collect()
    }

    fn job(&self, workflow: &str, job: &str, node: &Value, upstream: &[(String, bool)]) -> bool {
        let (workflow_id, number, id) = self.account.start(&self.id, job);
        let machine = self.machines.join(format!("{workflow}-{job}"));
        let (project, workspace) = (machine.join("project"), machine.join("workspace"));
        fs::create_dir_all(&machine).unwrap();
        let definition = &self.config["jobs"][job];
        let mut vars = self.account.job(number, "main", &self.p.git(&["rev-parse", "HEAD"]));
        vars.push(("GANGPLANK_WORKSPACE".into(), workspace.display().to_string()));
        vars.push(("GANGPLANK_HOME".into(), self.p.path("").display().to_string()));
        for (name, value) in definition["environment"].as_object().into_iter().flatten() {
            vars.push((name.clone(), self.fill(value.as_str().unwrap())));
        }
        if node["context"].as_array().is_some_and(|contexts| contexts.iter().any(|it| it == "shop-ci")) {
            vars.push(("CIRCLE_TOKEN".into(), TOKEN.into()));
        }
        // The path of the machine stands for /tmp/workspace, which all tests would share.
        let local = |text: &str| text.replace("/tmp/workspace", &workspace.display().to_string());
        let ok = definition["steps"].as_array().unwrap().iter().fold(true, |ok, step| {
            let (kind, step) = match step {
                Value::String(kind) => (kind.as_str(), &Value::Null),
                other => other.as_object().unwrap().iter().next().map(|(kind, step)| (kind.as_str(), step)).unwrap(),
            };
            let runs_always = kind == "store_artifacts" || step["when"] == "always";
            let done = (!ok && !runs_always)
                || match kind {
                    "checkout" => {
                        let root = self.p.path("").display().to_string();
                        self.p.git(&["clone", "--quiet", &root, project.to_str().unwrap()]);
                        true
                    }
                    "run" => self.bash(&local(step["command"].as_str().unwrap()), &project, &vars),
                    "persist_to_workspace" => {
                        let root = PathBuf::from(local(step["root"].as_str().unwrap()));
                        step["paths"].as_array().unwrap().iter().all(|path| {
                            let path = path.as_str().unwrap();
                            copy(&root.join(path), &machine.join("persisted").join(path))
                        })
                    }
                    "attach_workspace" => {
                        let at = PathBuf::from(local(step["at"].as_str().unwrap()));
                        fs::create_dir_all(&at).unwrap();
                        let layers =
                            upstream.iter().map(|(job, _)| self.machines.join(format!("{workflow}-{job}/persisted")));
                        layers.filter(|layer| layer.exists()).all(|layer| copy(&layer, &at))
                    }
                    "store_artifacts" => {
                        let path = project.join(local(step["path"].as_str().unwrap()));
                        self.account.store(number, &path, step["destination"].as_str().unwrap());
                        true
                    }
                    other => panic!("no such step: {other}"),
                };
            ok && done
        });
        self.account.end(&workflow_id, &id, if ok { JobStatus::Success } else { JobStatus::Failed });
        ok
    }

    fn bash(&self, command: &str, dir: &Path, vars: &[(String, String)]) -> bool {
        let fixture = self.p.command("");
        let inherited = fixture.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let mut bash = Command::new("/bin/bash");
        bash.args(["-eo", "pipefail", "-c", command]).current_dir(dir).env_clear().envs(inherited);
        let output = bash.envs(vars.iter().map(|(name, value)| (name, value))).output().unwrap();
        if !output.status.success() {
            eprintln!("$ {command}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    }
}

fn copy(from: &Path, to: &Path) -> bool {
    fs::create_dir_all(to).unwrap();
    let inside = format!("{}/.", from.display());
    Command::new("cp").args(["-R", "-p", &inside]).arg(to).status().unwrap().success()
}

#[test]
fn artifacts_config_under_another_executor_deploys_and_rolls_back() {
    let mut p = crate::ci::with_xtask();
    p.change(
        "store circleci:workspace\n",
        "store circleci:workspace\nstore circleci:artifacts\nhandoff artifacts\nci-context shop-ci\n",
    );
    p.run("ci generate").ok();
    p.commit("1");
    let account = Account::new(&p);
    let live = |env: &str| p.get(env).unwrap();

    // Approved before anything is built: there is nothing to deploy yet, and nothing older is taken instead.
    let first = Pipeline::start(&p, &account, &[]);
    assert_eq!(first.workflow("deploy-prod-on-approval"), ["approve-prod success", "deploy-prod failed"]);
    assert!(p.get("prod").is_err());
    let all = ["check success", "build success", "publish success", "deploy-dev success"];
    assert_eq!(first.workflow("build-deploy-dev"), all);
    assert_eq!(live("dev"), "1");
    let built = account.server.state().jobs.iter().find(|job| job.name == "build").unwrap().number.unwrap();
    assert_eq!(account.pointer().unwrap(), built.to_string());
    // Once more, as people do: a rerun has machines of its own.
    fs::remove_dir_all(&first.machines).unwrap();
    assert_eq!(first.workflow("deploy-prod-on-approval"), ["approve-prod success", "deploy-prod success"]);
    assert_eq!(live("prod"), "1");

    // A second commit goes to dev; prod is asked for by the pointer, taken back, and asked for by the number of the job.
    p.commit("2");
    let second = Pipeline::start(&p, &account, &[]);
    assert_eq!(second.workflow("build-deploy-dev"), all);
    assert_eq!((live("dev").as_str(), live("prod").as_str()), ("2", "1"));
    let asked = |stated: &[(&str, &str)], workflow: &str| Pipeline::start(&p, &account, stated).workflow(workflow);
    assert_eq!(asked(&[("deploy-env", "prod"), ("release", "latest")], "deploy-prod"), ["deploy-prod success"]);
    assert_eq!(live("prod"), "2");
    assert_eq!(asked(&[("rollback-env", "prod"), ("release", "previous")], "rollback-prod"), ["rollback-prod success"]);
    assert_eq!(live("prod"), "1");
    let release = format!("build:{}", account.pointer().unwrap());
    assert_eq!(asked(&[("deploy-env", "prod"), ("release", &release)], "deploy-prod"), ["deploy-prod success"]);
    assert_eq!(live("prod"), "2");
    // Neither an option nor a command comes in by a parameter.
    let evil = |release: &str| asked(&[("deploy-env", "prod"), ("release", release)], "deploy-prod");
    for release in ["$(touch evil)", "--allow-older", "x; touch evil", "`touch evil`", "\" ; touch evil; \""] {
        assert_eq!(evil(release), ["deploy-prod failed"], "{release}");
    }
    assert_eq!(live("prod"), "2");
    let machines = fs::read_dir(p.path("target")).unwrap().flatten().map(|it| it.path());
    let projects = machines.filter(|it| it.to_string_lossy().contains("machines-"));
    assert!(projects.into_iter().all(|it| !it.join("deploy-prod-deploy-prod/project/evil").exists()));
}
