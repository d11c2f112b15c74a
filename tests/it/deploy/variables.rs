//! Variables of the environment: those that a project fills in, those that are not text, and those that are secrets.

use crate::project::{Project, Ran};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Runs a command with a variable that is not UTF-8.
fn run_with_bytes(p: &Project, line: &str, name: &str) -> Ran {
    Ran::of(line, p.command(line).env(name, OsStr::from_bytes(b"caf\xe9-au-lait")))
}

#[test]
fn expand_default_with_braces_is_refused() {
    for text in ["${A:-http://${B:-x}/y}", "${A:-{host}}"] {
        let mut p = Project::new();
        p.change("target file:srv/dev\n", &format!("target file:srv/dev\nvar URL={text}\n"));
        // Used or not, and before anything is built.
        for name in ["B", "A"] {
            p.var(name, "set");
            for line in ["build", "plan dev", "deploy dev"] {
                p.run(line).fails(2, "has `{` in a default", "write a default without braces");
            }
        }
        p.run("doctor dev").code(1).stdout_has("has `{` in a default");
    }
}

#[test]
fn expand_variable_that_is_not_utf8_is_refused() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nvar DRINK=${DRINK:-tea}\n");
    p.release("1");
    run_with_bytes(&p, "deploy dev", "DRINK").fails(2, "variable DRINK is not UTF-8", "set it again in UTF-8");
    assert_eq!(p.current("srv/dev"), None);
    run_with_bytes(&p, "deploy dev", "LS_COLORS").ok();
}

#[test]
fn read_own_variable_that_is_not_utf8_is_refused() {
    let p = Project::new();
    for name in ["CIRCLE_TOKEN", "AWS_SECRET_ACCESS_KEY", "https_proxy", "HOME"] {
        run_with_bytes(&p, "status", name).fails(2, &format!("variable {name} is not UTF-8"), &format!("unset {name}"));
    }
}

#[test]
fn print_value_of_secret_variable_is_masked() {
    let p = Project::new();
    for (name, value, said) in [
        ("AZURE_STORAGE_KEY", "c2VzYW1lb3Blbg", "c2VzYW1lb3Blbg"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=acme;AccountKey=c2VzYW1lb3Blbg;", "c2VzYW1lb3Blbg"),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", r#"{"private_key": "c2VzYW1lb3Blbg"}"#, "c2VzYW1lb3Blbg"),
        ("DB_PASS", "sesame-open", "sesame-open"),
        ("MYSQL_PWD", "sesame-open", "sesame-open"),
        ("GPG_PASSPHRASE", "sesame-open", "sesame-open"),
        ("DATABASE_URL", "postgres://ana:sesame-open@db/shop", "sesame-open"),
        ("HTTPS_PROXY", "http://ana:sesame-open@127.0.0.1:3128", "sesame-open"),
    ] {
        let vars = [(name.to_owned(), value.to_owned())];
        let ran = p.run_with(&format!("deploy {said}"), &vars).code(2);
        assert!(ran.stderr.contains("`****`") && !ran.stderr.contains(said), "{name}: {}", ran.stderr);
    }
}
