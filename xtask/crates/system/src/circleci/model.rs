//! What API v2 answers, as far as we read it: <https://circleci.com/api/v2/openapi.json>. Fields that we do not need
//! are left out, and a missing one that we do need is an error of the API, not a guess of ours.

use jiff::Timestamp;
use serde::Deserialize;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Names the next page; absent on the last one.
    pub next_page_token: Option<String>,
}

/// `GET /project/{slug}`
#[derive(Debug, Deserialize)]
pub struct Project {
    /// UUID.
    pub id: String,
    /// UUID of its organization.
    pub organization_id: Option<String>,
    /// Its repository.
    pub vcs_info: Option<Repository>,
}

/// The repository of a project.
#[derive(Debug, Deserialize)]
pub struct Repository {
    /// The branch that counts where none is named.
    pub default_branch: Option<String>,
}

/// `GET /me`
#[derive(Debug, Deserialize)]
pub struct Person {
    /// What they are called.
    pub login: String,
}

/// `GET /project/{slug}/settings`
#[derive(Debug, Deserialize)]
pub struct Settings {
    /// What people can turn on and off.
    pub advanced: Advanced,
}

/// Settings of a project, as far as they matter to a deploy. One that an older server does not know is off.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Advanced {
    /// A push cancels what runs on its branch, unless that is the default one.
    pub autocancel_builds: bool,
    /// Pull requests from forks are built.
    pub build_fork_prs: bool,
    /// And get the secrets.
    pub forks_receive_secret_env_vars: bool,
}

/// A context, or a component of the Deploys page.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    /// UUID.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// A variable of a context; its value is not shown.
#[derive(Debug, Deserialize)]
pub struct ContextVariable {
    /// Its name.
    pub variable: String,
}

/// A pipeline: one event, one config.
#[derive(Debug, Clone, Deserialize)]
pub struct Pipeline {
    /// UUID.
    pub id: String,
    /// Counts up in the project.
    pub number: u64,
    /// `created`, `errored`, `setup`, `setup-pending`, `pending`.
    pub state: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// What is wrong with its config.
    #[serde(default)]
    pub errors: Vec<PipelineError>,
    vcs: Option<Vcs>,
    trigger_parameters: Option<TriggerParameters>,
}

/// Why a pipeline could not be made.
#[derive(Debug, Clone, Deserialize)]
pub struct PipelineError {
    /// In words.
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Vcs {
    // The specification has it nullable: a revision may not have been resolved.
    revision: Option<String>,
    branch: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct TriggerParameters {
    git: Option<Git>,
}

#[derive(Debug, Clone, Deserialize)]
struct Git {
    branch: Option<String>,
    checkout_sha: Option<String>,
}

impl Pipeline {
    /// Full SHA of the commit. Pipelines of the GitHub App have it in another place than all others.
    pub fn revision(&self) -> Option<&str> {
        let vcs = self.vcs.as_ref().and_then(|vcs| vcs.revision.as_deref());
        vcs.or_else(|| self.git()?.checkout_sha.as_deref())
    }

    /// Its branch; absent for a tag.
    pub fn branch(&self) -> Option<&str> {
        let vcs = self.vcs.as_ref().and_then(|vcs| vcs.branch.as_deref());
        vcs.or_else(|| self.git()?.branch.as_deref())
    }

    fn git(&self) -> Option<&Git> {
        self.trigger_parameters.as_ref()?.git.as_ref()
    }
}

/// A workflow of a pipeline; every rerun is one more.
#[derive(Debug, Clone, Deserialize)]
pub struct Workflow {
    /// UUID.
    pub id: String,
    /// Its name in the config.
    pub name: String,
    /// `success`, `running`, `not_run`, `failed`, `error`, `failing`, `on_hold`, `canceled`, `unauthorized`.
    pub status: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A job of a workflow.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// Its name in the config.
    pub name: String,
    /// `build` or `approval`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `success`, `failed`, `running`, `on_hold`, ...
    pub status: String,
    /// Absent until it starts, and for approvals.
    pub job_number: Option<u64>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// What to name when approving it.
    pub approval_request_id: Option<String>,
}

/// `GET /project/{slug}/job/{number}`
#[derive(Debug, Clone, Deserialize)]
pub struct JobDetails {
    /// Its name in the config.
    pub name: String,
    /// As in [`Job`].
    pub status: String,
    /// Where people look at it.
    pub web_url: String,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// The pipeline that it belongs to.
    pub pipeline: Named,
}

/// Something by its id.
#[derive(Debug, Clone, Deserialize)]
pub struct Named {
    /// UUID.
    pub id: String,
}

/// A file that a job stored; v1.1 has the same fields and more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Artifact {
    /// Destination and path below it.
    pub path: String,
    /// Which of a job's parallel runs stored it.
    pub node_index: u64,
    /// Where it is. Never made by hand: the hosts and the form have changed before.
    pub url: String,
}

/// A variable of the project.
#[derive(Debug, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// `xxxx` and the last four characters.
    pub value: String,
}

/// A pipeline definition: which config of which repository.
#[derive(Debug, Deserialize)]
pub struct Definition {
    /// UUID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where its config is.
    pub config_source: Option<ConfigSource>,
}

/// Where a config is.
#[derive(Debug, Deserialize)]
pub struct ConfigSource {
    /// Path in the repository.
    pub file_path: Option<String>,
}

/// A pipeline that was just started.
#[derive(Debug, Clone, Deserialize)]
pub struct Started {
    /// UUID.
    pub id: String,
    /// Counts up in the project.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_may_be_missing_or_elsewhere() {
        let of = |vcs: &str, rest: &str| -> Option<String> {
            let text = format!(
                r#"{{"id":"a","number":1,"state":"created","created_at":"2026-08-01T00:00:00Z","vcs":{vcs}{rest}}}"#
            );
            serde_json::from_str::<Pipeline>(&text).unwrap().revision().map(str::to_owned)
        };
        assert_eq!(of(r#"{"revision":"c0ffee","branch":"main"}"#, ""), Some("c0ffee".into()));
        assert_eq!(of(r#"{"revision":null,"branch":"main"}"#, ""), None);
        let app = r#","trigger_parameters":{"git":{"branch":"main","checkout_sha":"beef"}}"#;
        assert_eq!(of("null", app), Some("beef".into()));
    }
}
