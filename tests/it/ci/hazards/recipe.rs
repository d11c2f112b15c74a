//! Two common shell recipes as steps of a job, unchanged except for the host, the project and `https`, which a server
//! on loopback does not support.

use crate::account::{Account, SLUG, project};
use crate::ci::executor::yaml;
use crate::project::{Project, Ran};
use crate::record::skip;
use gangplank_loopback::Hook;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;

/// The config with these recipes.
pub const ARTICLE: &str = include_str!("../../../../xtask/crates/lint/src/article.yml");

/// The recipes show their token to `ps`, and a test of the account's own looks there for that one.
pub const TOKEN: &str = "CCIPAT_recipe_0f1e2d3c4b5a69788796";

/// A project and its CircleCI, both for the recipes and for ours. Nothing where curl or wget is missing.
pub fn state() -> Option<(Project, Account)> {
    world_with(SLUG, Box::new(|_| None))
}

/// With a slug, and a hook for faults.
pub fn world_with(slug: &str, hook: Hook) -> Option<(Project, Account)> {
    if !installed() {
        return None;
    }
    let p = project();
    let account = Account::open(&p, slug, hook);
    account.server.state().tokens.push(TOKEN.into());
    Some((p, account))
}

/// CI must have both, so that the recipes are never skipped there.
fn installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let runs = |tool: &&str| Command::new(tool).arg("--version").output().is_ok_and(|it| it.status.success());
        let missing: Vec<_> = ["bash", "curl", "wget"].into_iter().filter(|tool| !runs(tool)).collect();
        let missing = missing.join(" and ");
        assert!(missing.is_empty() || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "install {missing}");
        if !missing.is_empty() {
            skip(&format!("the curl|grep|wget recipes: {missing} is not installed"));
        }
        missing.is_empty()
    })
}

/// A recipe, ready to run.
pub struct Recipe {
    script: String,
    shell: &'static [&'static str],
    vars: BTreeMap<String, String>,
}

/// What it did.
pub struct Done {
    pub ran: Ran,
    /// The files in its working directory, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Recipe {
    /// The last step of the build job with this number: sets the variable.
    pub fn publish(account: &Account, job: u64) -> Self {
        let step = &yaml(ARTICLE)["jobs"]["build"]["steps"][3];
        Self::of(account, step).var("CIRCLE_BUILD_NUM", &job.to_string())
    }

    /// The first step of a deploy job that begins now: downloads what the variable names.
    pub fn fetch(account: &Account) -> Self {
        Self::of(account, &yaml(ARTICLE)["commands"]["get_latest_artifacts"]["steps"][0])
    }

    fn of(account: &Account, step: &Value) -> Self {
        let state = account.server.state();
        let script = step["run"]["command"].as_str().unwrap();
        let script = script.replace("https://circleci.com", &account.server.url());
        let script = script.replace(":vcs-type/:username/:project", &state.slug).replace("'https://", "'http://");
        let shell = &["bash", "-eo", "pipefail", "-c"];
        Self { script, shell, vars: state.envvars_for_job() }.var("API_TOKEN", TOKEN)
    }

    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// With other words in one place.
    pub fn saying(mut self, from: &str, to: &str) -> Self {
        assert!(self.script.contains(from), "no `{from}` in: {}", self.script);
        self.script = self.script.replace(from, to);
        self
    }

    pub fn shell(mut self, shell: &'static [&'static str]) -> Self {
        self.shell = shell;
        self
    }

    /// Runs it in an empty directory, with only PATH and the variables of the job.
    pub fn run(self) -> Done {
        let (dir, home) = (crate::record::tempdir(), crate::record::tempdir());
        let mut shell = Command::new(self.shell[0]);
        shell.args(&self.shell[1..]).arg(&self.script).current_dir(dir.path()).env_clear();
        shell.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.path()).envs(self.vars);
        let output = shell.output().unwrap();
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        });
        Done {
            files: files.collect(),
            ran: Ran {
                line: self.script,
                code: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8(output.stdout).unwrap(),
                stderr: String::from_utf8(output.stderr).unwrap(),
            },
        }
    }
}

impl Done {
    /// The recipe is content.
    #[track_caller]
    pub fn ok(self) -> Self {
        Self { ran: self.ran.ok(), ..self }
    }

    /// The release that it fetched, by the name of the bundle.
    #[track_caller]
    pub fn release(self) -> String {
        let done = self.ok();
        let bundle = done.files.keys().find_map(|name| name.strip_prefix("shop-")?.strip_suffix(".tar.gz"));
        bundle.unwrap_or_else(|| panic!("no bundle: {}", done.ran.stderr)).to_owned()
    }
}
