//! What `--json` says: the shape of every answer, event and error, recorded, and explained field by field in docs/json.md,
//! docs/json-events.md and docs/json-tools.md.

use crate::account::{self, Account};
use crate::ci::trigger::{carry_out, on_hold};
use crate::ci::with_xtask;
use crate::project::{Project, Ran, root};
use expect_test::expect_file;
use gangplank::program::Checked;
use gangplank_bench::compare;
use gangplank_bench::figures::{Comparison, Figures};
use gangplank_bench::fleet::{Report, Row};
use gangplank_bench::options::Missing;
use gangplank_deploy::ci::approve::Approved;
use gangplank_deploy::deploy::apply::Outcome;
use gangplank_deploy::deploy::notify::Notified;
use gangplank_deploy::deploy::report::{Diff, FileChange, Listed};
use gangplank_deploy::handoff::Pruned;
use gangplank_deploy::store::{Published, RetentionDecision};
use gangplank_loopback::JobStatus;
use gangplank_model::history::{Took, Verb};
use gangplank_model::plan::HostPlan;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::CiJob;
use gangplank_suite::Tested;
use gangplank_suite::groups::Grouped;
use gangplank_suite::times::Slow;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

/// Sections of the guide, each with its fields and what was seen in them.
#[derive(Default)]
struct Shapes(RefCell<BTreeMap<String, BTreeMap<String, BTreeSet<&'static str>>>>);

impl Shapes {
    /// Keeps the shape of a value.
    fn see(&self, section: &str, value: &Value) {
        look(self.0.borrow_mut().entry(section.to_owned()).or_default(), "", value);
    }

    /// Runs a command that succeeds, and keeps the shapes of its answer and of its events.
    fn run(&self, section: &str, p: &Project, line: &str, vars: &[(String, String)]) -> Value {
        let ran = p.run_with(&with_json(line), vars).ok();
        let answer = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("`{line}`: {}: {e}", ran.stdout));
        self.see(section, &answer);
        self.events(&ran);
        answer
    }

    /// The same for a command that says line by line what hosts say.
    fn hear(&self, section: &str, p: &Project, line: &str) {
        let ran = p.run(&with_json(line));
        assert!(!ran.stdout.is_empty(), "`{line}`: {}", ran.stderr);
        for said in ran.stdout.lines() {
            self.see(section, &serde_json::from_str(said).unwrap_or_else(|e| panic!("`{line}`: {said}: {e}")));
        }
        self.events(&ran);
    }

    /// Lines on stderr. Those of other programs, cargo's say, are as they are.
    fn events(&self, ran: &Ran) {
        for line in ran.stderr.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(event) if event.get("event").is_some() => self.see("Events", &event),
                Ok(error) if error.get("error").is_some() => self.see("Errors", &error),
                Ok(other) => panic!("`{}`: neither event nor error: {other}", ran.line),
                Err(_) => assert!(ran.line.starts_with("ci run"), "`{}`: {line}", ran.line),
            }
        }
    }
}

/// Before the words for another program.
fn with_json(line: &str) -> String {
    match line.split_once(" -- ") {
        Some((line, words)) => format!("{line} --json -- {words}"),
        None => format!("{line} --json"),
    }
}

/// Adds a value to what was seen at a path. Of things that come in kinds (`step`, `event`) each kind is a path of its own.
fn look(seen: &mut BTreeMap<String, BTreeSet<&'static str>>, path: &str, value: &Value) {
    let mut is = |kind| {
        seen.entry(path.to_owned()).or_default().insert(kind);
    };
    match value {
        Value::Null => is("null"),
        Value::Bool(_) => is("boolean"),
        Value::Number(_) => is("number"),
        Value::String(text) if text.contains('T') && text.parse::<jiff::Timestamp>().is_ok() => is("time"),
        Value::String(_) => is("text"),
        Value::Array(items) => {
            for item in items {
                look(seen, &format!("{path}[]"), item);
            }
        }
        Value::Object(fields) => {
            let kind = ["event", "step"].iter().find_map(|tag| fields.get(*tag).filter(|_| !fields.contains_key("at")));
            let path = match kind {
                Some(kind) => {
                    format!("{}{}", path.trim_end_matches("[]"), format_args!("[{}]", kind.as_str().unwrap()))
                }
                None => path.to_owned(),
            };
            for (name, field) in fields {
                // Names that are data.
                let name = if path.ends_with("parameters") || path.ends_with("end.jobs") { "NAME" } else { name };
                look(seen, format!("{path}.{name}").trim_start_matches('.'), field);
            }
        }
    }
}

const OUTCOME: &str = "plan, deploy, promote, rollback, prune ENV";
const SEALED: &str = "verify, fetch";

/// Everything that a laptop does, and a deploy that fails.
fn after_a_failed_deploy(seen: &Shapes) {
    let p = Project::with_service();
    p.write("behavior", "exit 9\n");
    p.release("1");
    p.run("deploy dev").code(1);
    seen.run("status", &p, "status", &[]);
}

fn on_a_laptop(seen: &Shapes) {
    let mut p = Project::with_service();
    p.add("hook before-each\n");
    p.write("hooks/before-each", "");
    p.change("include www\n", "include www\ninclude hooks\n");
    p.commit("1");
    let run = |section: &str, line: &str| seen.run(section, &p, line, &[]);
    let built = run("build", "build");
    let bundle = fs::read_dir(built["dir"].as_str().unwrap()).unwrap().flatten().map(|it| it.path());
    fs::write(bundle.into_iter().find(|path| path.extension().is_some_and(|it| it == "gz")).unwrap(), "damaged")
        .unwrap();
    run("build", "build");
    run(SEALED, "verify latest");
    run("keygen", "keygen target/key");
    run("sign", "sign latest --key target/key");
    run("put", "put");
    run(SEALED, "fetch");
    run(OUTCOME, "plan dev -v");
    run("status", "status");
    run(OUTCOME, "deploy dev --reason because -v");
    run(OUTCOME, "promote dev prod --yes");
    fs::write(p.path("www/more.html"), "more").unwrap();
    p.release("2");
    run("diff", "diff dev");
    run("report", "report dev");
    run(OUTCOME, "deploy dev");
    run("releases", "releases");
    run("status", "status");
    run("history", "history dev --all");
    seen.hear("logs", &p, "logs dev");
    seen.hear("exec", &p, "exec dev -- sh -c 'echo out; echo complaint >&2; exit 3'");
    fs::remove_file(p.path("www/more.html")).unwrap();
    p.write("behavior", "exit 3\n");
    p.release("3");
    let failed = p.run("deploy dev --json").code(1);
    seen.events(&failed);
    run("history", "history dev --all");
    p.write("behavior", "");
    p.release("4");
    run(OUTCOME, "deploy dev");
    run("diff", &format!("diff dev {}", run("status", "status dev")[0]["previous"].as_str().unwrap()));
    run(OUTCOME, "rollback dev");
    for text in ["5", "6"] {
        p.release(text);
        run(OUTCOME, "deploy dev --yes");
    }
    run(OUTCOME, "prune dev --keep 2");
    run("start, stop, restart", "restart dev");
    run("history", "history dev --all");
    let owner = r#"{"by":"ben@elsewhere","at":"2026-08-01T00:00:00Z","verb":"deploy","token":"x","host":"elsewhere","boot":"b","namespace":"n","pid":1,"start":1}"#;
    run("lock", "lock dev");
    p.write("srv/dev/.lock", owner);
    run("lock", "lock dev");
    run("status", "status");
    run("lock", "unlock dev --force");
    seen.events(&p.run("deploy dev --lock-wait soon --json").code(2));
    seen.events(&p.run("deploy nowhere --json").code(2));
    run("doctor", "doctor");
    run("doctor", "doctor dev");
    run("setup", "setup dev");
    let mut far = Project::new();
    far.change("target file:srv/dev\n", "target ssh://deploy@web1/srv/app\n");
    seen.run("setup", &far, "setup dev", &[]);
    run("completions", "completions bash");
    if cfg!(feature = "s3") {
        run("man", "man target/man");
    } else {
        seen.see("man", &serde_json::json!([{ "path": "cargo-xtask.1" }]));
    }
}

/// A pipeline on this machine, with its config.
fn on_this_machine(seen: &Shapes) {
    let p = with_xtask();
    p.commit("1");
    seen.run("ci run", &p, "ci run --no-approve", &[]);
    seen.run("ci run", &p, "ci run --yes", &[]);
    seen.run("history", &p, "history prod", &[]);
    seen.run("ci generate", &p, "ci generate", &[]);
    p.write("bad.yml", "version: 2.1\nworkflows:\n  main:\n    jobs: [nothing]\n");
    let lint = p.run("ci lint bad.yml --json").code(1);
    seen.see("ci lint", &serde_json::from_str(&lint.stdout).unwrap());
}

/// What asks CircleCI.
fn on_circleci(seen: &Shapes) {
    let p = account::project();
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    let laptop = account.laptop();
    for _ in 0..2 {
        let job = account.with_token(built.job + 1000, "main", &built.sha);
        seen.run("publish", &p, &format!("publish {}", built.id), &job);
    }
    seen.run("releases", &p, "releases", &laptop);
    on_hold(&account, 1);
    seen.run("ci approve", &p, "ci approve prod --yes", &laptop);
    seen.run("ci trigger", &p, "ci trigger deploy dev", &laptop);
    std::thread::scope(|scope| {
        scope.spawn(|| carry_out(&account, 3, JobStatus::Success));
        seen.run("ci trigger", &p, "ci trigger deploy prod --yes --follow --reason late", &laptop);
    });
}

/// What is seldom in a plan.
fn rare_plans(seen: &Shapes) {
    let taken_over =
        HostPlan { target: "t".into(), steps: vec![], fallback: None, replaces: Some("releases/2024".into()) };
    let planned =
        Outcome { failed_in: vec!["dev".into()], ..Outcome::planned("prod", Verb::Deploy, None, vec![taken_over]) };
    seen.see(OUTCOME, &serde_json::json!(planned));
    seen.see("notify", &serde_json::json!([Notified { kind: "slack", status: "sent" }]));
}

/// What commands on releases print seldom.
fn of_releases(seen: &Shapes) {
    let id: ReleaseId = "20260801T000200-0123456".parse().unwrap();
    let (branch, bytes, time) = (None, 1, jiff::Timestamp::UNIX_EPOCH);
    let listed = Listed {
        release: id.clone(),
        commit: "c".into(),
        branch,
        bytes,
        time,
        stores: vec![],
        live_in: vec![],
        subject: None,
    };
    seen.see("releases", &serde_json::json!([listed]));
    let (commits, lost_commits) = (None, None);
    let changes = || vec![FileChange { path: "p".into(), from: 1, to: 2 }];
    let (added, removed, changed) = (changes(), changes(), changes());
    let (live, candidate) = (id.clone(), id);
    let diff =
        Diff { env: "dev".into(), live, candidate, added, removed, changed, bytes: (1, 2), commits, lost_commits };
    seen.see("diff", &serde_json::to_value(diff).unwrap());
    let ci = CiJob { job: 1, url: None, workflow: None, pipeline: None };
    seen.see("history", &serde_json::json!([{ "records": [{ "at": time, "ci": ci, "took": Took::default() }] }]));
}

/// What takes minutes, or a bucket, to be seen: the answers alone.
fn made_here(seen: &Shapes) {
    let checks = vec![Checked { check: "format".into(), ms: 1 }];
    seen.see(
        "test",
        &serde_json::json!(Tested {
            checks,
            slowest: vec![Slow { test: "a::b".into(), ms: 1 }],
            skipped: vec!["ssh".into()],
            flaky: vec!["a::c".into()]
        }),
    );
    seen.see("test --list", &serde_json::json!([Grouped { group: "kill", test: "kill::a".into() }]));
    let kept = ["a branch has it", ""].map(|reason| RetentionDecision {
        what: "id".into(),
        reason: Some(reason.into()).filter(|_| !reason.is_empty()),
    });
    let pruned = Pruned { store: "s3://b/p".into(), removed: true, kept: kept.into() };
    seen.see("prune --store", &serde_json::to_value(pruned).unwrap());
    let figures = |host_cpu_seconds| Figures { seconds: 1.5, cpu_seconds: 0.5, host_cpu_seconds, bytes: 7 };
    let comparison = Comparison { ratio: 0.5, ours: figures(Some(0.25)), theirs: figures(Some(0.25)) };
    let row = Row { workload: "w".into(), delay_ms: 50, release: "first", against: "scp", comparison };
    let missing = vec![Missing { peer: "rsync", install: "apt-get" }];
    let report = Report { bench: "fleet", hosts: 10, rounds: 3, cpus: 2, rows: vec![row], missing };
    seen.see("bench fleet", &serde_json::to_value(report).unwrap());
    let comparison = Comparison { ratio: 0.5, ours: figures(None), theirs: figures(None) };
    let rows = vec![compare::Row { workload: "w".into(), what: "bundle", against: "tar-gz", comparison }];
    let missing = vec![Missing { peer: "tar-pigz-files", install: "apt-get" }];
    let report = compare::Report { bench: "bundle", rounds: 3, cpus: 2, rows, missing };
    seen.see("bench bundle, bench fetch, bench overhead, bench compile", &serde_json::to_value(report).unwrap());
    // What is not known everywhere.
    let (release, reason) = (None, None);
    let published = Published { store: "s3://b/p".into(), pointer: None, job: None, release, moved: false, reason };
    seen.see("publish", &serde_json::json!([published]));
    let approved = Approved { pipeline: 1, commit: None, workflow: "w".into(), job: "j".into() };
    seen.see("ci approve", &serde_json::to_value(approved).unwrap());
    of_releases(seen);
    for known in [true, false] {
        let text = |text: &str| known.then(|| text.to_owned());
        let becomes = known.then_some("cargo xtask build");
        let made = gangplank_new::options::NewReport {
            what: "adopt",
            path: "/srv/shop".into(),
            name: "shop".into(),
            handoff: known.then_some("s3"),
            commit: text("c"),
            from_version: text("0.1.0"),
            version: "0.1.0",
            dry_run: false,
            files: vec!["f".into()],
            scripts: vec![gangplank_new::ScriptMapping { file: "f".into(), line: 1, text: "l".into(), becomes }],
            notes: vec!["n".into()],
            next: vec!["n".into()],
        };
        seen.see("new", &serde_json::to_value(made).unwrap());
    }
    seen.see("A command of one's own", &serde_json::json!({ "text": "" }));
}

#[test]
fn json_of_answers_events_and_errors_matches_the_golden_file() {
    let seen = Shapes::default();
    on_a_laptop(&seen);
    after_a_failed_deploy(&seen);
    on_this_machine(&seen);
    on_circleci(&seen);
    made_here(&seen);
    rare_plans(&seen);
    let mut text = String::new();
    for (section, fields) in &*seen.0.borrow() {
        let _ = writeln!(text, "{section}");
        for (path, kinds) in fields {
            let kinds: Vec<_> = kinds.iter().copied().filter(|kind| *kind != "null").collect();
            let null = fields[path].contains("null").then_some("null");
            let _ = writeln!(text, "  {path}: {}", kinds.into_iter().chain(null).collect::<Vec<_>>().join(" or "));
        }
    }
    expect_file![root().join("tests/it/golden/json.txt")].assert_eq(&text);
}

/// The fields of each section of the two guides: rows of their tables.
fn explained() -> BTreeSet<String> {
    let guide = ["docs/json.md", "docs/json-events.md", "docs/json-tools.md"]
        .map(|path| fs::read_to_string(root().join(path)).unwrap())
        .concat();
    let (mut section, mut fields) = ("", BTreeSet::new());
    for line in guide.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading;
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let columns: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
        assert!(columns.len() == 3 && columns[2].len() > 2, "{section}: not a path, a type and a meaning: {line}");
        fields.insert(format!("{section}: {}: {}", columns[0].trim_end_matches('`'), columns[1]));
    }
    fields
}

#[test]
fn guide_explains_each_json_field_and_no_other() {
    let golden = fs::read_to_string(root().join("tests/it/golden/json.txt")).unwrap();
    let mut section = "";
    let mut recorded = BTreeSet::new();
    for line in golden.lines() {
        match line.strip_prefix("  ") {
            Some(field) => drop(recorded.insert(format!("{section}: {field}"))),
            None => section = line,
        }
    }
    let explained = explained();
    let missing: Vec<_> = recorded.difference(&explained).cloned().collect();
    let invented: Vec<_> = explained.difference(&recorded).cloned().collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "docs/json*.md do not explain:\n{}\nand explain what there is not:\n{}",
        missing.join("\n"),
        invented.join("\n")
    );
}
