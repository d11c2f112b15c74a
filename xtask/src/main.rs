//! This project's pipeline. Everything that can be decided about it is decided here; `cargo xtask --help` shows what
//! can be done with it.

use gangplank::prelude::*;

const PROJECT: Project = Project {
    app: App { name: "app", packages: &["app"], include: &["app/static"], ..App::DEFAULT },
    stores: STORES,
    envs: &[
        Env {
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
    // The context holds CIRCLE_TOKEN, for the jobs that ask CircleCI's API.
    ci: Ci { context: Some("app-circleci"), ..Ci::DEFAULT },
};

/// The workspace hands over from job to job, artifacts from workflow to workflow; the directory keeps releases on this
/// machine. A bucket, where the xtask is compiled with it, keeps them for ever.
const STORES: &[&str] = if cfg!(feature = "s3") {
    &["circleci:workspace", "s3://app-releases/app", "circleci:artifacts", "file:target/store"]
} else {
    &["circleci:workspace", "circleci:artifacts", "file:target/store"]
};

const SERVICE: Service = Service::Pidfile { run: &["bin/app"], stop_timeout: Duration::from_secs(15) };

/// Healthy is what answers with the commit that was deployed, and not merely something on that port.
const fn answers(url: &'static str) -> Health {
    Health::new(Check::Http { url, status: 200, body: Some("{commit}") })
}

fn main() -> ExitCode {
    gangplank::main(&PROJECT)
}
