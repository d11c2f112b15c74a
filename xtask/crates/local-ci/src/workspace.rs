//! CircleCI's workspace on this machine, with its rules: layers are added and never changed, a job sees those of the
//! jobs that it requires, and two concurrent jobs must not persist the same file.

use gangplank_model::ci::pipeline::Workflow;
use gangplank_model::error::{Result, failed};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The layers of one workflow run.
pub struct Layers {
    dir: PathBuf,
}

impl Layers {
    /// Layers are stored in `dir`, one directory per job.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Adds the files that match `paths` below `root` as the layer of `job`. A path is a directory or a glob of Go's
    /// `filepath.Match`, which has no `**`.
    pub fn persist(&self, job: &str, root: &Path, paths: &[String]) -> Result<()> {
        if !root.is_dir() {
            return failed(format!(
                "job `{job}`: Error locating workspace root directory: {} does not exist",
                root.display()
            ))
            .hint("create it in an earlier step; `root` and `at` must be the same absolute directory")
            .err();
        }
        let mut matched = false;
        for file in files_below(root)? {
            if paths.iter().any(|pattern| matches(pattern, &file)) {
                matched = true;
                copy(&root.join(&file), &self.dir.join(job).join(&file))?;
            }
        }
        if !matched {
            return failed(format!("job `{job}`: The specified paths did not match any files in {}", root.display()))
                .hint(format!("the paths are: {}", paths.join(", ")))
                .err();
        }
        Ok(())
    }

    /// Copies the layers of all transitive dependencies of `job` into `at`.
    pub fn attach(&self, workflow: &Workflow, job: &str, at: &Path) -> Result<usize> {
        let mut owner: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for upstream in workflow.ancestors(job) {
            let name = upstream.name.as_str();
            for file in files_below(&self.dir.join(name))? {
                if let Some(other) = owner.insert(file.clone(), name)
                    && !workflow.ancestors(name).iter().any(|job| job.name == other)
                {
                    return failed(format!(
                        "job `{job}`: Concurrent upstream jobs persisted the same file(s): {} by {other} and {name}",
                        file.display()
                    ))
                    .hint("let each job persist to its own directory")
                    .err();
                }
            }
        }
        fs::create_dir_all(at)?;
        for (file, name) in &owner {
            copy(&self.dir.join(name).join(file), &at.join(file))?;
        }
        Ok(owner.len())
    }
}

/// Files below a directory, relative to it.
pub fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        if !entry.file_type().is_dir() {
            files.push(entry.path().strip_prefix(dir)?.to_owned());
        }
    }
    Ok(files)
}

/// Whether a path entry matches this file, or a directory above it.
fn matches(pattern: &str, file: &Path) -> bool {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let Ok(glob) = glob::Pattern::new(pattern.trim_end_matches('/')) else { return false };
    file.ancestors().any(|part| !part.as_os_str().is_empty() && glob.matches_path_with(part, options))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let _ = fs::remove_file(to);
    if from.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::ci::pipeline::{Job, Kind};

    /// `"a; b a; c a; d b c"`: each job after those it requires.
    fn workflow(text: &str) -> Workflow {
        let jobs = text.split(';').map(|job| {
            let mut words = job.split_whitespace().map(str::to_owned);
            let job = Job::new(words.next().unwrap(), Kind::Approval);
            Job { requires: words.collect(), ..job }
        });
        Workflow { name: "w".into(), when: None, jobs: jobs.collect() }
    }

    fn persist(layers: &Layers, dir: &Path, job: &str, files: &[&str], paths: &[&str]) -> Result<()> {
        let root = dir.join(format!("root-{job}"));
        for file in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), format!("{file} of {job}")).unwrap();
        }
        layers.persist(job, &root, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn attach_sees_only_files_that_required_jobs_persisted() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::new(dir.path().join("layers"));
        persist(&layers, dir.path(), "a", &["out/x", "out/deep/y", "left/z"], &["out"]).unwrap();
        persist(&layers, dir.path(), "b", &["b.txt"], &["*.txt"]).unwrap();
        let workflow = workflow("a; b; c a; d c");
        let at = dir.path().join("c");
        assert_eq!(layers.attach(&workflow, "c", &at).unwrap(), 2);
        assert!(at.join("out/deep/y").exists() && !at.join("left/z").exists() && !at.join("b.txt").exists());
        assert_eq!(layers.attach(&workflow, "d", &dir.path().join("d")).unwrap(), 2, "through c");
        assert_eq!(layers.attach(&workflow, "b", &dir.path().join("b")).unwrap(), 0, "requires nothing");
    }

    #[test]
    fn attach_of_same_file_from_concurrent_jobs_fails_else_last_wins() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::new(dir.path().join("layers"));
        persist(&layers, dir.path(), "a", &["x"], &["x"]).unwrap();
        persist(&layers, dir.path(), "b", &["x"], &["x"]).unwrap();
        let error = layers.attach(&workflow("a; b; c a b"), "c", &dir.path().join("c")).unwrap_err();
        assert!(
            error.to_string().contains("Concurrent upstream jobs persisted the same file(s): x by a and b"),
            "{error}"
        );
        layers.attach(&workflow("a; b a; c b"), "c", &dir.path().join("c2")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("c2/x")).unwrap(), "x of b");
    }

    #[test]
    fn nothing_to_persist_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::new(dir.path().join("layers"));
        let error = layers.persist("a", &dir.path().join("none"), &["x".into()]).unwrap_err();
        assert!(error.to_string().contains("Error locating workspace root directory"), "{error}");
        let error = persist(&layers, dir.path(), "a", &["x/y"], &["z", "*.txt", "y"]).unwrap_err();
        assert!(error.to_string().contains("did not match any files"), "{error}");
    }
}
