//! Releases in Azure containers, on Azurite: the contract, a story, each kind of credential, and errors for a wrong
//! container or key.

mod server;

use crate::bucket::server::with;
use crate::bucket::{keeps_contract, leaked, open};
use crate::cli::doctor::{broken, checks, run};
use crate::project::Project;
use server::{ACCOUNT, Azurite, CONTAINER, KEY, azurite, fresh_url, signature};

/// A project that stores in a container, with these variables.
fn project(url: &str, vars: &[(String, String)]) -> Project {
    let mut p = Project::new();
    p.change("store file:store\n", &format!("store {url}\n"));
    p.var("GANGPLANK_API_DEADLINE", "20");
    for (name, value) in vars {
        p.var(name, value);
    }
    p
}

/// The account and the endpoint, without a key.
fn without_key(azurite: &Azurite) -> Vec<(String, String)> {
    azurite.vars().into_iter().filter(|(name, _)| name != "AZURE_STORAGE_KEY").collect()
}

#[test]
#[ignore = "group azure"]
fn store_on_azurite_keeps_the_contract() {
    let Some(azurite) = azurite() else { return };
    keeps_contract(&azurite.vars(), &fresh_url());
}

#[test]
#[ignore = "group azure"]
fn release_in_container_goes_from_commit_to_live_and_is_pruned() {
    let Some(azurite) = azurite() else { return };
    let url = fresh_url();
    let p = project(&url, &azurite.vars());
    // Of several parts.
    p.write("www/noise", &crate::ci::faults::noise(20 << 20));
    let one = p.release("1");
    p.run("put").ok().stdout_is(&format!("{url}: {one} stored\n"));
    p.run("put").ok().stdout_has("already has it");
    p.run("verify --store").ok().stdout_has("has every byte");
    p.run("publish").ok().stdout_is(&format!("{url}: latest/shop/main.json names {one}\n"));
    let two = p.release("2");
    p.run("put").ok();
    p.run("publish").ok();
    p.run(&format!("publish {one}")).ok().stdout_has("it already names a newer release");
    std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.run("deploy dev latest").ok().stderr_has(&format!("fetched {two} from {url}"));
    p.run("promote dev prod --yes").ok();
    p.run("releases").ok().stdout_has(&one).stdout_has(&two).stdout_has(&url);
    p.run(&format!("fetch {} --into target/got", &one[one.len() - 7..])).ok();
    let ran = run(&p, "doctor dev", &[]).code(0);
    assert!(checks(&ran, "ok").iter().any(|it| it.contains("with conditional writes")), "{}", ran.stdout);
    p.run(&format!("prune --store {url} --keep 0 --days 0 --yes")).ok();
    let left = p.run("releases --json").ok().stdout;
    assert!(!left.contains(&one) && left.contains(&two), "{left}");
}

#[test]
#[ignore = "group azure"]
fn host_fetches_by_a_url_that_is_signed_with_the_key() {
    let Some(azurite) = azurite() else { return };
    let mut p = project(&fresh_url(), &azurite.vars());
    p.change("env prod\n", "pull\nenv prod\n");
    p.release("1");
    p.run("put").ok();
    p.run("publish").ok();
    std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    let ran = p.run("deploy dev latest -v").ok().stderr_has("themselves from az://");
    assert_eq!(p.live("srv/dev"), "1");
    assert!(!ran.stderr.contains("sig="), "{}", ran.stderr);
    // A signature signs no other one, so the release is sent.
    let mut vars = without_key(azurite);
    vars.push(("AZURE_STORAGE_SAS_TOKEN".into(), signature("rcwdl", 1)));
    let mut p = project(&fresh_url(), &vars);
    p.change("env prod\n", "pull\nenv prod\n");
    p.release("1");
    p.run("put").ok();
    let ran = p.run("deploy dev").ok();
    assert!(!ran.stderr.contains("themselves from az://"), "{}", ran.stderr);
    assert_eq!(p.live("srv/dev"), "1");
}

#[test]
#[ignore = "group azure"]
fn put_with_variables_of_each_kind_is_stored() {
    let Some(azurite) = azurite() else { return };
    let var = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let endpoint = var("AZURE_STORAGE_ENDPOINT", &azurite.endpoint());
    let sas = signature("rcwdl", 1);
    let by_signature = format!("BlobEndpoint={};AccountName={ACCOUNT};SharedAccessSignature={sas}", azurite.endpoint());
    for vars in [
        vec![var("AZURE_STORAGE_CONNECTION_STRING", &azurite.connection_string())],
        vec![var("AZURE_STORAGE_CONNECTION_STRING", &by_signature)],
        vec![var("AZURE_STORAGE_ACCOUNT", ACCOUNT), var("AZURE_STORAGE_KEY", KEY), endpoint.clone()],
        vec![var("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), var("AZURE_STORAGE_ACCOUNT_KEY", KEY), endpoint.clone()],
        vec![var("AZURE_STORAGE_ACCOUNT", ACCOUNT), var("AZURE_STORAGE_SAS_TOKEN", &sas), endpoint.clone()],
        vec![var("AZURE_STORAGE_ACCOUNT", ACCOUNT), var("AZURE_STORAGE_SAS_KEY", &format!("?{sas}")), endpoint.clone()],
        vec![var("AZURE_STORAGE_USE_EMULATOR", "true"), endpoint.clone()],
    ] {
        let p = project(&fresh_url(), &vars);
        p.release("1");
        p.run("put").ok();
        p.run("publish").ok();
        p.run("deploy dev latest").ok();
    }
}

#[test]
#[ignore = "group azure"]
fn container_that_is_missing_is_code_2() {
    let Some(azurite) = azurite() else { return };
    let url = fresh_url().replace(CONTAINER, "no-such-container");
    let mut p = project(&url, &azurite.vars());
    p.release("1");
    let (says, hint) = ("there is no such container", "az storage container create --name no-such-container");
    for line in ["put", "publish", "verify --store", "deploy dev"] {
        p.run(line).fails(2, says, hint);
    }
    p.run(&format!("prune --store {url} --yes")).fails(2, says, hint);
    broken(&p, "doctor", says, hint);
    assert_eq!(p.current("srv/dev"), None);
    p.var("AZURE_STORAGE_ACCOUNT", "");
    p.var("AZURE_STORAGE_KEY", "");
    p.run("put").fails(
        3,
        "no credentials: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT",
        "docs/s3.md",
    );
}

#[test]
#[ignore = "group azure"]
fn key_that_is_wrong_is_code_3() {
    let Some(azurite) = azurite() else { return };
    let wrong = KEY.replace("Eby8", "Ebx8");
    let other = azurite.connection_string().replace(KEY, &wrong);
    for (name, value, says, hint) in [
        ("AZURE_STORAGE_KEY", wrong.as_str(), "the key does not belong to this account", "set AZURE_STORAGE_KEY again"),
        ("AZURE_STORAGE_KEY", &KEY[..20], "the key does not belong to this account", "it may be truncated"),
        ("AZURE_STORAGE_KEY", &KEY[..21], "the key in AZURE_STORAGE_KEY is not base64", "copy it again"),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            &other,
            "the key does not belong",
            "set AZURE_STORAGE_CONNECTION_STRING again",
        ),
    ] {
        let url = fresh_url();
        let mut p = project(&url, &without_key(azurite));
        p.var(name, value);
        p.release("1");
        for line in ["put", "publish", &format!("prune --store {url} --yes")] {
            let ran = p.run(line).fails(3, says, hint);
            assert!(!ran.stderr.contains(&value[..20]), "{}", ran.stderr);
        }
        broken(&p, "doctor", says, hint);
    }
}

#[test]
#[ignore = "group azure"]
fn signature_that_has_expired_or_allows_too_little_is_code_3() {
    let Some(azurite) = azurite() else { return };
    for (permissions, hours, says, hint) in [
        ("rcwdl", -1, "the shared access signature is rejected: it has expired", "az storage container generate-sas"),
        ("rl", 1, "access denied", "a signature with `sp=rcwdl`"),
    ] {
        let mut p = project(&fresh_url(), &without_key(azurite));
        p.var("AZURE_STORAGE_SAS_TOKEN", &signature(permissions, hours));
        p.release("1");
        p.run("put").fails(3, says, hint);
    }
}

#[test]
#[ignore = "group azure"]
fn publishers_at_once_leave_the_newest() {
    let Some(azurite) = azurite() else { return };
    let dir = crate::record::tempdir();
    let (ctx, url) = (leaked(with(dir.path(), &azurite.vars())), fresh_url());
    let releases: Vec<_> = (0..6).map(|n| crate::parts::release(dir.path(), n, &[("a", &n.to_string())])).collect();
    for release in &releases {
        open(ctx, &url).put(release).unwrap();
    }
    std::thread::scope(|scope| {
        for release in &releases {
            let url = &url;
            scope.spawn(move || open(ctx, url).publish(release.manifest()).unwrap().unwrap());
        }
    });
    let latest = open(ctx, &url).latest().unwrap().unwrap();
    assert_eq!(latest.id, *releases[5].id());
}
