//! Cargo: for its checks and builds, and to go on as another program of this workspace.

use crate::context::{Context, is_cargos_own, not_started, run_xtask, var};
use crate::process;
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
        // Relative paths on the command line refer to the current directory.
        command.args(std::env::args_os().skip(1)).current_dir(".");
        command.envs(feature.map(|feature| (var::FEATURES, feature)));
        let cause = process::become_it(&mut command);
        not_started(&command, &cause)
    }
}
