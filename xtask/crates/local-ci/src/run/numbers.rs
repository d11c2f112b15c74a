//! Local runs that need no API: pipelines and jobs have numbers and UUIDs, and artifacts are files.

use crate::run::cloud::{
    Cloud, JobResult, Opening, Running, Started, WorkflowEnd, keep_artifact, place, prune_artifacts, save, slug,
};
use gangplank_model::ci::pipeline::{Job, Workflow};
use gangplank_model::error::{Kind, Result, WithHint};
use gangplank_model::release::digest;
use gangplank_system::context::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the state: the state with an API counts jobs of its own.
const DIR: &str = "numbers";
/// The file of the state.
const FILE: &str = "state.json";

/// The state without a server.
struct Numbered {
    slug: String,
    dir: PathBuf,
    state: RefCell<Numbers>,
}

/// What the next run continues.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Numbers {
    /// The number of the last pipeline.
    pipeline: u64,
    /// The number of the last job.
    job: u64,
    /// The number of UUIDs.
    ids: u64,
    /// Numbers of the jobs with artifacts.
    artifacts: BTreeSet<u64>,
}

/// Opens the state left by earlier runs. Jobs get no token, as without `CIRCLE_TOKEN` on CircleCI.
pub fn open(of: &Opening) -> Result<Box<dyn Cloud>> {
    let (slug, dir) = (slug(of.ctx, of.project), of.dir.join(DIR));
    let what = || format!("cannot make {}", dir.display());
    fs::create_dir_all(&dir).with_hint(Kind::Failed, what, || "check its permissions".into())?;
    Ok(Box::new(Numbered { slug, state: RefCell::new(read(&dir)), dir }))
}

/// The state in a directory; a new one if there is none that can be read.
fn read(dir: &Path) -> Numbers {
    let kept = fs::read(dir.join(FILE)).ok();
    kept.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl Numbered {
    fn uuid(&self) -> String {
        let mut state = self.state.borrow_mut();
        state.ids += 1;
        digest::uuid(&format!("{} {}", self.slug, state.ids))
    }

    /// The number of the next job.
    fn number(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.job += 1;
        state.job
    }
}

impl Cloud for Numbered {
    fn start_pipeline(&self, _: &Context, _: Option<Map<String, Value>>) -> Result<String> {
        self.state.borrow_mut().pipeline += 1;
        Ok(self.uuid())
    }

    fn start_workflow(&self, pipeline: &str, _: &Workflow) -> Running {
        Running { pipeline: pipeline.to_owned(), workflow: self.uuid() }
    }

    fn start_job(&self, _: &Running, _: &Job) -> Started {
        Started { id: self.uuid(), number: self.number() }
    }

    fn end_job(&self, _: &Running, _: &Job, _: JobResult) {}

    fn end_workflow(&self, _: &Running, _: WorkflowEnd) {}

    fn store(&self, number: u64, path: &str, from: &Path) -> Result<()> {
        keep_artifact(&self.dir, number, path, from)?;
        self.state.borrow_mut().artifacts.insert(number);
        Ok(())
    }

    fn variables(&self, running: &Running, started: &Started, _: bool) -> Vec<(String, String)> {
        let id = ("CIRCLE_PROJECT_ID".to_owned(), digest::uuid(&self.slug));
        place(running, started, self.state.borrow().pipeline, &self.slug).chain([id]).collect()
    }
}

impl Drop for Numbered {
    /// Saves the state for the next run, without the artifacts of old jobs.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let numbers: Vec<_> = state.artifacts.iter().copied().collect();
        for number in prune_artifacts(&self.dir, &numbers) {
            state.artifacts.remove(&number);
        }
        if let Ok(text) = serde_json::to_vec(state) {
            save(&self.dir, FILE, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of a job that stores an artifact; returns its numbers.
    fn run(dir: &Path) -> (u64, u64, String) {
        let cloud = Numbered { slug: "gh/a/shop".into(), dir: dir.to_owned(), state: RefCell::new(read(dir)) };
        cloud.state.borrow_mut().pipeline += 1;
        let running = Running { pipeline: cloud.uuid(), workflow: cloud.uuid() };
        let number = cloud.number();
        fs::write(dir.join("app"), "bytes").unwrap();
        cloud.store(number, "out/app", &dir.join("app")).unwrap();
        let vars = cloud.variables(&running, &Started { id: cloud.uuid(), number }, true);
        assert!(vars.contains(&("CIRCLE_BUILD_NUM".into(), number.to_string())), "{vars:?}");
        assert!(vars.iter().all(|(name, _)| name != "CIRCLE_TOKEN" && name != "CIRCLE_HOST"), "{vars:?}");
        (cloud.state.borrow().pipeline, number, running.workflow)
    }

    #[test]
    fn next_run_continues_the_numbers_and_old_artifacts_go() {
        let dir = tempfile::tempdir().unwrap();
        let ends: Vec<_> = (0..25).map(|_| run(dir.path())).collect();
        assert_eq!((ends[24].0, ends[24].1), (25, 25));
        let unique: BTreeSet<_> = ends.iter().map(|(_, _, id)| id).collect();
        assert_eq!(unique.len(), 25, "a workflow of another run has another UUID");
        let kept = fs::read_dir(dir.path().join("artifacts")).unwrap().count();
        assert_eq!(kept, 20);
        assert_eq!(fs::read_to_string(dir.path().join("artifacts/25/out/app")).unwrap(), "bytes");
        // A file that was cut off starts anew.
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(run(dir.path()).1, 1);
    }
}
