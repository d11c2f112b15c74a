//! This project's pipeline. All settings are in this file; `cargo xtask --help` lists the commands.

use gangplank::prelude::*;

const PROJECT: Project = Project {
    app: App { name: "app", packages: &["app"], include: &["app/static"], ..App::DEFAULT },
    stores: STORES,
    envs: &[
        Env {
            // A host over ssh is "ssh://deploy@web1.example.com/srv/app"; `cargo xtask setup dev` prints what it needs.
            name: "dev",
            targets: &["file:target/deploy/dev"],
            vars: &[("PORT", "${DEV_PORT:-8081}")],
            service: SERVICE,
            health: answers("http://127.0.0.1:${DEV_PORT:-8081}/version"),
            keep: 3,
            approval: false,
            context: Some("app-dev"),
            ..Env::DEFAULT
        },
        Env {
            name: "prod",
            targets: &["file:target/deploy/prod"],
            vars: &[("PORT", "${PROD_PORT:-8082}")],
            service: SERVICE,
            health: answers("http://127.0.0.1:${PROD_PORT:-8082}/version"),
            keep: 5,
            approval: true,
            context: Some("app-prod"),
            ..Env::DEFAULT
        },
    ],
    // The context has CIRCLE_TOKEN, for the jobs that use CircleCI's API. With `launch`, jobs on request do not compile.
    ci: Ci { context: Some("app-circleci"), launch: true, ..Ci::DEFAULT },
};

/// The workspace passes releases from job to job, artifacts from workflow to workflow; the directory keeps releases on
/// this machine. A bucket, if the xtask is compiled with support for it, keeps them permanently.
const STORES: &[&str] = if cfg!(feature = "s3") {
    &["circleci:workspace", "s3://app-releases/app", "circleci:artifacts", "file:target/store"]
} else {
    &["circleci:workspace", "circleci:artifacts", "file:target/store"]
};

const SERVICE: Service = Service::Pidfile { run: &["bin/app"], stop_timeout: Duration::from_secs(15) };

/// Healthy means that the service answers with the deployed commit, not only that the port is open.
const fn answers(url: &'static str) -> Health {
    Health::new(Check::Http { url, status: 200, body: Some("{commit}") })
}

fn main() -> ExitCode {
    gangplank::main(&PROJECT)
}
