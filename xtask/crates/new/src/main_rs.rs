//! `xtask/src/main.rs` of a project: that of this repository with other values in it.
//!
//! It is filled in piece by piece, and each piece has to be there, so a change of the file that this module does not know
//! of is an error of its tests and not a project that does not compile.

use crate::parts;
use crate::parts::Part;
use gangplank_model::error::{Result, failed};
use gangplank_model::project;
use gangplank_model::project::{Ci, Env, Handoff, Project};
use gangplank_model::release::digest;
use std::collections::BTreeSet;

/// The settings in main.rs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The app.
    pub app: App,
    /// How jobs pass releases on.
    pub handoff: Handoff,
    /// URL of the bucket, if the handoff has one.
    pub bucket: String,
    /// dev and prod.
    pub envs: [TargetAnswers; 2],
    /// The branch to deploy.
    pub branch: String,
    /// Image of the jobs that compile, if not the default.
    pub image: Option<String>,
    /// Whether the engine is a copy: jobs can launch a stored program only then.
    pub is_vendored: bool,
    /// The parts of the engine that it has.
    pub parts: BTreeSet<Part>,
    /// Whether warnings of clippy fail the pipeline.
    pub is_strict: bool,
    /// Whether code that rustfmt would change fails it too.
    pub is_formatted: bool,
}

/// The app: contents, and how it is started.
#[derive(Debug, Clone)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Packages whose binaries are built.
    pub packages: Vec<String>,
    /// Files that go with them.
    pub include: Vec<String>,
    /// Features with which they are built, each as `PACKAGE/FEATURE`.
    pub features: Vec<String>,
    /// Binaries that are not built, and the features they need.
    pub without: Vec<(String, Vec<String>)>,
    /// Folders that are not included, and why.
    pub left_out: Vec<(String, &'static str)>,
    /// How it runs.
    pub runs: Runs,
}

/// How an app runs, as far as known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// A managed service that returns its commit at `/version`.
    Sample,
    /// Probably a program that listens on `PORT`.
    Server(String),
    /// No service, or none that was found.
    No,
}

/// The targets of an env.
#[derive(Debug, Clone)]
pub struct TargetAnswers {
    /// Name of the env.
    pub name: &'static str,
    /// URLs of its targets; a local directory if empty.
    pub targets: Vec<String>,
}

impl App {
    /// The sample app under another name.
    pub fn sample(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            packages: vec![name.to_owned()],
            include: vec!["app/static".into()],
            features: vec![],
            without: vec![],
            left_out: vec![],
            runs: Runs::Sample,
        }
    }
}

impl TargetAnswers {
    /// An env without a host.
    pub fn local(name: &'static str) -> Self {
        Self { name, targets: vec![] }
    }

    /// One more target.
    pub fn add(&mut self, url: &str) {
        self.targets.push(url.to_owned());
    }

    fn is_remote(&self) -> bool {
        self.targets.iter().any(|target| target.starts_with("ssh:"))
    }

    /// URLs of its targets.
    pub fn urls(&self) -> Vec<String> {
        if self.targets.is_empty() { vec![format!("file:target/deploy/{}", self.name)] } else { self.targets.clone() }
    }
}

impl Plan {
    /// The stores, in search order.
    fn stores(&self) -> Vec<String> {
        let handed_over_by = match self.handoff {
            Handoff::Workspace => None,
            Handoff::Artifacts => Some("circleci:artifacts".to_owned()),
            Handoff::S3 => Some(self.bucket.clone()),
        };
        ["circleci:workspace".to_owned()]
            .into_iter()
            .chain(handed_over_by)
            .chain(["file:target/store".into()])
            .collect()
    }

    /// A job needs the API's token to ask for a stored program.
    pub fn launches(&self) -> bool {
        self.is_vendored && self.context().is_some()
    }

    /// The directories of the crates that the copy of the engine lacks.
    pub fn left_out(&self) -> Vec<&'static str> {
        if self.is_vendored { parts::left_out(&self.parts) } else { vec![] }
    }

    /// Whether the engine has a part. Only a copy can lack one.
    pub fn has(&self, part: Part) -> bool {
        !self.is_vendored || self.parts.contains(part)
    }

    /// Only jobs that use CircleCI's API need its token.
    fn context(&self) -> Option<String> {
        (self.handoff == Handoff::Artifacts).then(|| format!("{}-circleci", self.app.name))
    }

    /// The project as main.rs defines it, as far as the configs depend on it. Leaked, because the constant is static.
    pub fn project(&self) -> Project {
        let envs = self.envs.iter().map(|place| Env {
            name: place.name,
            targets: leak_all(&place.urls()),
            approval: place.name == "prod",
            context: Some(leak(&format!("{}-{}", self.app.name, place.name))),
            ..Env::DEFAULT
        });
        Project {
            app: project::App { name: leak(&self.app.name), ..project::App::DEFAULT },
            stores: leak_all(&self.stores()),
            envs: Box::leak(envs.collect::<Vec<_>>().into_boxed_slice()),
            ci: Ci {
                branch: leak(&self.branch),
                handoff: self.handoff,
                context: self.context().map(|it| leak(&it)),
                rust_image: self.image.as_deref().map_or(Ci::DEFAULT.rust_image, leak),
                launch: self.launches(),
                report: self.has("html"),
                pointers: Box::leak(Box::new([(leak(&self.branch), "LATEST_BUILD_NUM")])),
                ..Ci::DEFAULT
            },
        }
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn leak_all(texts: &[String]) -> &'static [&'static str] {
    Box::leak(texts.iter().map(|text| leak(text)).collect::<Vec<_>>().into_boxed_slice())
}

/// A Rust array of texts.
fn array(texts: &[String]) -> String {
    format!("&[{}]", texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", "))
}

/// The SHA-256 of main.rs as it is in Gangplank's repository.
const PRISTINE: &str = "955a6a6901f860bf15d055d0d4f019bbec841d15e924edd20244ac97f3068b4e";

/// The text of main.rs for a plan, from that of this repository. A main.rs that was edited in this checkout has envs,
/// hosts and hooks of its own, which must not get into another project.
pub fn fill(template: &str, plan: &Plan) -> Result<String> {
    if digest::of(template.as_bytes()) != PRISTINE {
        return failed("xtask/src/main.rs of this checkout was edited, and new projects are made of it")
            .hint("`git clone` Gangplank to another directory and run `cargo xtask new` there")
            .err();
    }
    fill_in(template, plan)
}

fn fill_in(template: &str, plan: &Plan) -> Result<String> {
    let mut main = Filling { text: template.to_owned(), values: vec![] };
    let app = &plan.app;
    main.cut("/// The workspace passes releases from job to job", "const SERVICE: ")?;
    let stores = main.value(array(&plan.stores()));
    main.swap("stores: STORES", &format!("stores: {stores}"))?;
    let features =
        if app.features.is_empty() { String::new() } else { format!(", features: {}", array(&app.features)) };
    let (packages, include) = (array(&app.packages), array(&app.include));
    let built = format!("name: {:?}, packages: {packages}, include: {include}{features}", app.name);
    let built = main.value(built);
    main.swap(r#"name: "app", packages: &["app"], include: &["app/static"]"#, &built)?;
    for place in &plan.envs {
        fill_env(&mut main, place, &app.name)?;
    }
    match &app.runs {
        Runs::Sample => {
            let run = main.value(format!("bin/{}", app.name));
            main.swap("bin/app", &run)?;
        }
        Runs::Server(binary) => {
            let run = main.value(format!("bin/{binary}"));
            main.swap("bin/app", &run)?;
            ports_for_health(&mut main)?;
        }
        Runs::No => nothing_runs(&mut main)?,
    }
    fill_ci(&mut main, plan)?;
    Ok(main.finish())
}

fn fill_env(main: &mut Filling, place: &TargetAnswers, app: &str) -> Result<()> {
    let TargetAnswers { name, .. } = place;
    let urls = main.value(array(&place.urls()));
    main.swap(&format!(r#"&["file:target/deploy/{name}"]"#), &urls)?;
    let context = main.value(format!("{app}-{name}"));
    main.swap(&format!("\"app-{name}\""), &format!("\"{context}\""))?;
    if place.is_remote() {
        // The machine that deploys sends the request, so the app must listen where that reaches it.
        let port = format!("${{{}_PORT:-", name.to_uppercase());
        main.swap(&format!("http://127.0.0.1:{port}"), &format!("http://{{host}}:{port}"))?;
        main.swap(
            &format!("vars: &[(\"PORT\", \"{port}"),
            &format!("vars: &[(\"HOST\", \"0.0.0.0\"), (\"PORT\", \"{port}"),
        )?;
    }
    Ok(())
}

/// The response of a foreign app is unknown, but an open port can be checked.
fn ports_for_health(main: &mut Filling) -> Result<()> {
    main.swap_all("answers(\"http://", "listens(\"")?;
    main.swap_all("/version\")", "\")")?;
    main.cut("/// Healthy means that the service answers", "fn main()")?;
    main.swap(
        "fn main()",
        "/// Healthy means that the port accepts connections. To check the commit as well, use `Check::Http`.\n\
         const fn listens(addr: &'static str) -> Health {\n    Health::new(Check::Tcp { addr })\n}\n\nfn main()",
    )
}

/// Only installs files: another program serves them, or a person starts them.
fn nothing_runs(main: &mut Filling) -> Result<()> {
    main.drop_lines(&["            vars: ", "            service: ", "            health: "])?;
    main.cut("const SERVICE: ", "fn main()")
}

fn fill_ci(main: &mut Filling, plan: &Plan) -> Result<()> {
    let mut says = Vec::new();
    if plan.branch != "main" {
        says.push(format!("branch: {:?}", plan.branch));
        says.push(format!("pointers: &[({:?}, \"LATEST_BUILD_NUM\")]", plan.branch));
    }
    if plan.handoff != Handoff::Workspace {
        says.push(format!("handoff: Handoff::{:?}", plan.handoff));
    }
    says.extend(plan.image.as_ref().map(|image| format!("rust_image: {image:?}")));
    says.extend(plan.context().map(|context| format!("context: Some({context:?})")));
    says.extend(plan.launches().then(|| "launch: true".to_owned()));
    says.extend((!plan.has("html")).then(|| "report: false".to_owned()));
    says.extend((!plan.is_strict).then(|| "deny_warnings: false".to_owned()));
    says.extend((!plan.is_formatted).then(|| "format: false".to_owned()));
    if !plan.launches() {
        main.swap(" With `launch`, jobs on request do not compile.", "")?;
    }
    if plan.context().is_none() {
        main.drop_lines(&["    // The context has CIRCLE_TOKEN"])?;
    }
    let ci =
        if says.is_empty() { "Ci::DEFAULT".into() } else { format!("Ci {{ {}, ..Ci::DEFAULT }}", says.join(", ")) };
    main.swap(r#"Ci { context: Some("app-circleci"), launch: true, ..Ci::DEFAULT }"#, &ci)
}

/// A text whose pieces are replaced, each of which has to be there. What replaces them is put in at the end, so that no
/// value of a person's is taken for a piece.
struct Filling {
    text: String,
    values: Vec<String>,
}

/// Stands for a value: private characters around its number.
fn placeholder(n: usize) -> String {
    format!("\u{e000}{n}\u{e001}")
}

impl Filling {
    fn swap(&mut self, from: &str, to: &str) -> Result<()> {
        if self.text.matches(from).count() != 1 {
            return missing(from);
        }
        self.text = self.text.replace(from, to);
        Ok(())
    }

    /// Stores a value and returns its placeholder.
    fn value(&mut self, value: String) -> String {
        self.values.push(value);
        placeholder(self.values.len() - 1)
    }

    /// The text with all values in it.
    fn finish(self) -> String {
        let values = self.values.iter().enumerate();
        values.fold(self.text, |text, (n, value)| text.replace(&placeholder(n), value))
    }

    fn swap_all(&mut self, from: &str, to: &str) -> Result<()> {
        if !self.text.contains(from) {
            return missing(from);
        }
        self.text = self.text.replace(from, to);
        Ok(())
    }

    /// Takes out everything from one piece up to another.
    fn cut(&mut self, from: &str, to: &str) -> Result<()> {
        let Some(start) = self.text.find(from) else { return missing(from) };
        let Some(length) = self.text[start..].find(to) else { return missing(to) };
        self.text.replace_range(start..start + length, "");
        Ok(())
    }

    /// Takes out all lines that begin so.
    fn drop_lines(&mut self, starts: &[&str]) -> Result<()> {
        for start in starts {
            if !self.text.lines().any(|line| line.starts_with(start)) {
                return missing(start);
            }
            self.text =
                self.text.lines().filter(|line| !line.starts_with(start)).map(|line| format!("{line}\n")).collect();
        }
        Ok(())
    }
}

fn missing<T>(piece: &str) -> Result<T> {
    failed(format!("the template of main.rs must contain `{}` exactly once", piece.trim()))
        .hint("update `new/main_rs.rs`")
        .err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edited_template_is_refused_so_that_its_hosts_stay_here() {
        let ours = crate::tree::template("xtask/src/main.rs").unwrap();
        let plan = plan(App::sample("shop"), Handoff::Workspace);
        fill(ours, &plan).expect("PRISTINE is the digest of main.rs: change it with the file");
        let edited = ours.replace("envs: &[", "envs: &[MINE, ");
        assert_ne!(edited, ours);
        assert!(format!("{:#}", fill(&edited, &plan).unwrap_err()).contains("was edited"));
    }

    fn plan(app: App, handoff: Handoff) -> Plan {
        let envs = [TargetAnswers::local("dev"), TargetAnswers::local("prod")];
        let bucket = "s3://acme/app".into();
        Plan {
            app,
            handoff,
            bucket,
            envs,
            branch: "main".into(),
            image: None,
            is_vendored: true,
            parts: ["html", "launch", "local-ci"].into(),
            is_strict: true,
            is_formatted: true,
        }
    }

    fn filled(plan: &Plan) -> String {
        fill(crate::tree::template("xtask/src/main.rs").unwrap(), plan).unwrap()
    }

    #[test]
    fn fill_works_for_each_kind_of_app_and_handoff() {
        let foreign = |runs: Runs| App {
            name: "web".into(),
            packages: vec!["web".into()],
            include: vec![],
            features: vec!["web/cli".into()],
            without: vec![],
            left_out: vec![],
            runs,
        };
        for app in [App::sample("web"), foreign(Runs::Server("webd".into())), foreign(Runs::No)] {
            for handoff in Handoff::ALL {
                let mut plan = plan(app.clone(), handoff);
                let text = filled(&plan);
                assert!(!text.contains("\"app\"") && !text.contains("app-") && !text.contains("STORES"), "{text}");
                assert_eq!(text.contains("Handoff::"), handoff != Handoff::Workspace, "{text}");
                assert_eq!(text.matches("web-circleci").count(), usize::from(handoff == Handoff::Artifacts), "{text}");
                assert_eq!(text.contains(r#"features: &["web/cli"]"#), app.runs != Runs::Sample, "{text}");
                plan.branch = "trunk".into();
                plan.image = Some("cimg/rust:1.95.0".into());
                plan.is_strict = false;
                let text = filled(&plan);
                assert!(text.contains(r#"branch: "trunk""#) && text.contains(r#"rust_image: "cimg/rust:1.95.0""#));
            }
        }
    }

    #[test]
    fn fill_for_foreign_app_checks_only_its_port_or_nothing() {
        let app = |runs| App {
            name: "web".into(),
            packages: vec!["web".into()],
            runs,
            include: vec![],
            ..App::sample("web")
        };
        let server = filled(&plan(app(Runs::Server("webd".into())), Handoff::Workspace));
        assert!(server.contains(r#"health: listens("127.0.0.1:${DEV_PORT:-8081}")"#), "{server}");
        assert!(server.contains(r#"run: &["bin/webd"]"#) && !server.contains("/version"), "{server}");
        let files = filled(&plan(app(Runs::No), Handoff::Workspace));
        assert!(!files.contains("SERVICE") && !files.contains("Health") && !files.contains("PORT"), "{files}");
    }

    #[test]
    fn fill_writes_the_same_values_as_the_project() {
        let mut plan = plan(App::sample("shop"), Handoff::Artifacts);
        plan.envs[1].add("ssh://deploy@web1/srv/shop");
        let project = plan.project();
        let text = filled(&plan);
        for env in project.envs {
            assert!(text.contains(&format!("name: {:?}", env.name)), "{text}");
            assert!(text.contains(&array(&env.targets.iter().map(ToString::to_string).collect::<Vec<_>>())), "{text}");
            assert!(text.contains(&format!("context: Some({:?})", env.context.unwrap())), "{text}");
            assert!(text.contains(&format!("approval: {}", env.approval)));
        }
        assert!(text.contains(&array(&project.stores.iter().map(ToString::to_string).collect::<Vec<_>>())), "{text}");
    }

    #[test]
    fn fill_of_template_without_a_piece_names_it() {
        let error = fill_in("fn main() {}\n", &plan(App::sample("shop"), Handoff::Workspace)).unwrap_err();
        assert!(error.to_string().contains("must contain `/// The workspace passes"), "{error}");
    }
}
