//! Cargo: for its checks and builds, and to go on as another program of this workspace.

use crate::context::{Context, is_cargos_own, not_started, run_xtask, var};
use crate::process;
use gangplank_model::error::failed;
use std::process::Command;

impl Context {
    /// Cargo for this workspace, without the variables set by the cargo that runs us: they would rerun build scripts,
    /// and those of ring take a minute.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.var("CARGO").unwrap_or("cargo"));
        command.args(args).current_dir(&self.root);
        for name in self.env.keys().filter(|name| is_cargos_own(name)) {
            command.env_remove(name);
        }
        if let Some(quiet) = self.var(var::CARGO_QUIET) {
            command.env(var::CARGO_QUIET, quiet);
        }
        // Build scripts are code of others.
        command.env_remove(var::SIGNING_KEY);
        command
    }

    /// Executes the program of another package of this workspace, compiled with a Cargo feature, on the same command
    /// line. Returns only on failure.
    pub fn become_program(&self, package: &str, feature: Option<&str>) -> anyhow::Error {
        let mut words = vec!["run", "--quiet", "--package", package];
        words.extend(feature.iter().flat_map(|feature| ["--features", feature]));
        words.push("--");
        self.become_run(&words, feature)
    }

    /// Executes the xtask of this workspace with a Cargo feature, on the same command line. Returns only on failure.
    pub fn become_xtask_with(&self, feature: &str) -> anyhow::Error {
        let words = run_xtask(&self.root, Some(feature));
        self.become_run(&words.iter().map(String::as_str).collect::<Vec<_>>(), Some(feature))
    }

    /// Executes cargo with these arguments and those of this process.
    fn become_run(&self, words: &[&str], feature: Option<&str>) -> anyhow::Error {
        let mut command = self.cargo(words);
        if let Some(key) = self.var(var::SIGNING_KEY) {
            // Compiled without it, then run with it.
            let build: Vec<_> = words.iter().map(|word| if *word == "run" { "build" } else { word }).collect();
            let mut compile = self.cargo(build.strip_suffix(&["--"]).unwrap_or(&build));
            compile.current_dir(".");
            match self.watch(compile) {
                Ok(Some(0)) => {}
                Ok(_) => return failed("cargo did not compile it, see above").hint("fix the error first").into(),
                Err(error) => return error,
            }
            command.env(var::SIGNING_KEY, key);
        }
        // Relative paths on the command line refer to the current directory.
        command.args(std::env::args_os().skip(1)).current_dir(".");
        command.envs(feature.map(|feature| (var::FEATURES, feature)));
        let cause = process::become_it(&mut command);
        not_started(&command, &cause)
    }
}
