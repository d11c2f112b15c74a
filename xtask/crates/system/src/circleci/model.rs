//! The answers of API v2, as far as they are used: <https://circleci.com/api/v2/openapi.json>. Unused fields are
//! omitted; a missing field that is used is an error.

use jiff::Timestamp;
use serde::Deserialize;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The token of the next page; absent on the last one.
    pub next_page_token: Option<String>,
}

/// `GET /project/{slug}`
#[derive(Debug, Deserialize)]
pub struct Project {
    /// UUID.
    pub id: String,
    /// UUID of the organization.
    pub organization_id: Option<String>,
    /// The repository.
    pub vcs_info: Option<Repository>,
}

/// The repository of a project.
#[derive(Debug, Deserialize)]
pub struct Repository {
    /// The default branch.
    pub default_branch: Option<String>,
}

/// `GET /me`
#[derive(Debug, Deserialize)]
pub struct Person {
    /// The login.
    pub login: String,
}

/// `GET /project/{slug}/settings`
#[derive(Debug, Deserialize)]
pub struct Settings {
    /// The optional settings.
    pub advanced: Advanced,
}

/// The settings that matter to a deploy; one unknown to an older server is off.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Advanced {
    /// Whether a push cancels running pipelines of its branch, except the default one.
    pub autocancel_builds: bool,
    /// Whether pull requests from forks are built.
    pub build_fork_prs: bool,
    /// Whether these receive the secrets.
    pub forks_receive_secret_env_vars: bool,
}

/// A context, or a component of the Deploys page.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    /// UUID.
    pub id: String,
    /// The name.
    pub name: String,
}

/// A variable of a context, without its value.
#[derive(Debug, Deserialize)]
pub struct ContextVariable {
    /// The name.
    pub variable: String,
}

/// A pipeline: one event, one config.
#[derive(Debug, Clone, Deserialize)]
pub struct Pipeline {
    /// UUID.
    pub id: String,
    /// Number within the project.
    pub number: u64,
    /// `created`, `errored`, `setup`, `setup-pending`, `pending`.
    pub state: String,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Errors of its config.
    #[serde(default)]
    pub errors: Vec<PipelineError>,
    vcs: Option<Vcs>,
    trigger_parameters: Option<TriggerParameters>,
}

/// Why a pipeline could not be created.
#[derive(Debug, Clone, Deserialize)]
pub struct PipelineError {
    /// The message.
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Vcs {
    // Nullable in the specification: a revision may be unresolved.
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
    /// Full SHA of the commit. Pipelines of the GitHub App have it in another field.
    pub fn revision(&self) -> Option<&str> {
        let vcs = self.vcs.as_ref().and_then(|vcs| vcs.revision.as_deref());
        vcs.or_else(|| self.git()?.checkout_sha.as_deref())
    }

    /// The branch; absent for a tag.
    pub fn branch(&self) -> Option<&str> {
        let vcs = self.vcs.as_ref().and_then(|vcs| vcs.branch.as_deref());
        vcs.or_else(|| self.git()?.branch.as_deref())
    }

    fn git(&self) -> Option<&Git> {
        self.trigger_parameters.as_ref()?.git.as_ref()
    }
}

/// A workflow of a pipeline; each rerun is another one.
#[derive(Debug, Clone, Deserialize)]
pub struct Workflow {
    /// UUID.
    pub id: String,
    /// The name in the config.
    pub name: String,
    /// `success`, `running`, `not_run`, `failed`, `error`, `failing`, `on_hold`, `canceled`, `unauthorized`.
    pub status: String,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// A job of a workflow.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// The name in the config.
    pub name: String,
    /// `build` or `approval`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `success`, `failed`, `running`, `on_hold`, ...
    pub status: String,
    /// Absent until it starts, and for approvals.
    pub job_number: Option<u64>,
    /// Time of the end.
    pub stopped_at: Option<Timestamp>,
    /// The id to approve it with.
    pub approval_request_id: Option<String>,
}

/// `GET /project/{slug}/job/{number}`
#[derive(Debug, Clone, Deserialize)]
pub struct JobDetails {
    /// The name in the config.
    pub name: String,
    /// As in [`Job`].
    pub status: String,
    /// The page of the job.
    pub web_url: String,
    /// Time of the end.
    pub stopped_at: Option<Timestamp>,
    /// The pipeline.
    pub pipeline: Named,
}

/// A reference by id.
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
    /// The index of the parallel run that stored it.
    pub node_index: u64,
    /// The URL. Never constructed: hosts and format have changed before.
    pub url: String,
}

/// A variable of the project.
#[derive(Debug, Deserialize)]
pub struct EnvVar {
    /// The name.
    pub name: String,
    /// `xxxx` and the last four characters.
    pub value: String,
}

/// A pipeline definition: a config in a repository.
#[derive(Debug, Deserialize)]
pub struct Definition {
    /// UUID.
    pub id: String,
    /// The name.
    pub name: String,
    /// The location of the config.
    pub config_source: Option<ConfigSource>,
}

/// The location of a config.
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
    /// Number within the project.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_of_pipeline_may_be_missing_or_elsewhere() {
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
