//! Signatures: what an env that requires one refuses, and what OpenSSH says of them.

use crate::ci::with_xtask;
use crate::project::{Project, output_of};
use gangplank_bundle::release::sums;
use gangplank_model::release::manifest::Manifest;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A project whose env prod trusts the keys `ana` and `ben`; `eve` exists too.
fn project() -> Project {
    let mut p = Project::new();
    p.write(".gitignore", "/target\n/store\n/other\n/srv\n/settings\n/keys\n");
    fs::create_dir(p.path("keys")).unwrap();
    for name in ["ana", "ben", "eve"] {
        p.run(&format!("keygen keys/{name}")).ok().stdout_has(&format!(" {name}\n"));
    }
    for name in ["ana", "ben"] {
        let key = p.read(&format!("keys/{name}.pub"));
        p.add(&format!("require-signature {key}"));
    }
    p
}

fn key(p: &Project, name: &str) -> String {
    p.path(&format!("keys/{name}")).display().to_string()
}

/// A release in the store, and only there, signed by these keys.
fn stored(p: &Project, text: &str, keys: &[&str]) -> String {
    let id = p.release(text);
    for name in keys {
        p.run(&format!("sign --key {}", key(p, name))).ok();
    }
    p.run("put --store file:store").ok();
    fs::remove_dir_all(p.path("target/releases").join(&id)).unwrap();
    id
}

/// What can write to the store changes the manifest of a release there, so that only a signature can tell.
fn forge(p: &Project, id: &str, change: &dyn Fn(&mut Value)) {
    let dir = p.path("store").join(id);
    let mut json: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    change(&mut json);
    let manifest = Manifest::parse(json.to_string().as_bytes(), "forged").unwrap();
    let bytes = manifest.to_json();
    fs::write(dir.join("SHA256SUMS"), sums(&manifest, &bytes)).unwrap();
    fs::write(dir.join("manifest.json"), bytes).unwrap();
}

/// The bytes that a signature of a stored release signs.
fn signed_bytes(p: &Project, id: &str) -> Vec<u8> {
    let text = fs::read(p.path("store").join(id).join("manifest.json")).unwrap();
    Manifest::parse(&text, "stored").unwrap().signed_bytes()
}

/// A signature by `ssh-keygen`.
fn by_openssh(key: &str, namespace: &str, bytes: &[u8]) -> String {
    let text = output_of("ssh-keygen", &["-q", "-Y", "sign", "-f", key, "-n", namespace], bytes);
    String::from_utf8(text).unwrap()
}

#[test]
fn deploy_of_a_release_that_no_trusted_key_signed_is_refused_before_it_is_fetched() {
    let p = project();
    let good = stored(&p, "good", &["ana"]);
    p.run("deploy prod --yes").ok().stderr_has(&format!("{good} was signed by ana"));

    let refuse = |id: &str, what: &str, hint: &str| {
        // A fetch of this bundle would fail otherwise: it has no bytes.
        let bundle = p.path("store").join(id).join(format!("shop-{id}.tar.gz"));
        let bytes = fs::read(&bundle).unwrap();
        fs::write(&bundle, "").unwrap();
        for command in ["plan prod", "deploy prod --yes"] {
            p.run(&format!("{command} {id}")).fails(7, what, hint);
        }
        fs::write(&bundle, bytes).unwrap();
        assert_eq!(p.live("srv/prod"), "good");
    };
    let unsigned = stored(&p, "unsigned", &[]);
    refuse(&unsigned, "is not signed, and prod requires a signature", "cargo xtask sign");
    let by_eve = stored(&p, "eve", &["eve"]);
    refuse(&by_eve, "was signed by the key SHA256:", "find out whose key it is");
    // A key that signs something else as well, such as commits.
    let of_commit = stored(&p, "commit", &[]);
    let signature = by_openssh(&key(&p, "ana"), "git", &signed_bytes(&p, &of_commit));
    forge(&p, &of_commit, &|json| json["signatures"] = json!([signature]));
    refuse(&of_commit, "was signed for the namespace `git`", "cargo xtask sign");
    // The signature of one release with another.
    let moved = stored(&p, "moved", &[]);
    let of_good: Value = serde_json::from_str(&p.read(&format!("store/{good}/manifest.json"))).unwrap();
    forge(&p, &moved, &|json| json["signatures"] = of_good["signatures"].clone());
    refuse(&moved, "by ana is of another manifest", "do not deploy it");
    let changed = stored(&p, "changed", &["ana", "eve"]);
    forge(&p, &changed, &|json| json["commit"]["branch"] = json!("other"));
    refuse(&changed, "by ana is of another manifest", "do not deploy it");

    // Envs that require none deploy them, and either key of the two is enough.
    p.run(&format!("deploy dev {unsigned}")).ok();
    let by_ben = stored(&p, "ben", &["eve", "ben"]);
    p.run("deploy prod --yes").ok().stderr_has(&format!("{by_ben} was signed by ben"));
    p.run("promote dev prod --yes --allow-older").fails(7, "is not signed", "cargo xtask sign");
    // What was deployed before is a way back, whatever is required now.
    p.run("rollback prod --yes").ok().stderr_lacks("would refuse");
    assert_eq!(p.live("srv/prod"), "good");
}

#[test]
fn forger_of_the_store_can_at_most_offer_an_older_signed_release() {
    let p = project();
    let v1 = stored(&p, "1", &["ana"]);
    p.run("deploy prod --yes").ok();
    let v2 = stored(&p, "2", &["ana"]);
    p.run("deploy prod --yes").ok();
    p.run(&format!("deploy prod {v1} --yes")).fails(8, "older", "--allow-older");
    // The same bytes under the name of the newer one.
    fs::remove_dir_all(p.path("store").join(&v2)).unwrap();
    fs::rename(p.path("store").join(&v1), p.path("store").join(&v2)).unwrap();
    p.run(&format!("deploy prod {v2} --yes")).fails(5, "no store has", "releases").stderr_has("skipped an unreadable");
    // With the manifest corrected to that name, the signature is of another one.
    let dir = p.path("store").join(&v2);
    fs::rename(dir.join(format!("shop-{v1}.tar.gz")), dir.join(format!("shop-{v2}.tar.gz"))).unwrap();
    let sha = p.git(&["rev-parse", "HEAD"]);
    let time = p.git(&["show", "--no-patch", "--format=%cI", "HEAD"]);
    forge(&p, &v2, &|json| {
        json["id"] = json!(v2);
        json["commit"]["sha"] = json!(sha);
        json["commit"]["time"] = json!(time);
        json["bundle"]["file"] = json!(format!("shop-{v2}.tar.gz"));
    });
    p.run(&format!("deploy prod {v2} --yes")).fails(7, "by ana is of another manifest", "do not deploy it");
    assert_eq!(p.live("srv/prod"), "2");
}

#[test]
fn ssh_keygen_accepts_our_signatures_and_we_accept_its_own() {
    let mut p = project();
    let id = stored(&p, "1", &["ana"]);
    let text = p.read(&format!("store/{id}/manifest.json"));
    let json: Value = serde_json::from_str(&text).unwrap();
    let signature = json["signatures"][0].as_str().unwrap();
    p.write("keys/signature", signature);
    let lines = ["ana", "ben"]
        .map(|name| format!("{name}@example.com namespaces=\"gangplank\" {}", p.read(&format!("keys/{name}.pub"))));
    p.write("keys/allowed_signers", &lines.concat());
    let at = |name: &str| key(&p, name);
    let verify = |who: &str, namespace: &str, bytes: &[u8]| {
        let (allowed, signature) = (at("allowed_signers"), at("signature"));
        let args = ["-Y", "verify", "-f", &allowed, "-I", who, "-n", namespace, "-s", &signature];
        let mut child =
            Command::new("ssh-keygen").args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // It does not read what it refuses at once.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        child.wait().unwrap().success()
    };
    let bytes = signed_bytes(&p, &id);
    assert!(verify("ana@example.com", "gangplank", &bytes));
    assert!(!verify("ben@example.com", "gangplank", &bytes), "another signer");
    assert!(!verify("ana@example.com", "gangplank", text.as_bytes()), "the manifest with its signature");

    // The file that ssh-keygen reads is one for an env, too.
    let theirs = stored(&p, "2", &[]);
    let by_ben = by_openssh(&key(&p, "ben"), "gangplank", &signed_bytes(&p, &theirs));
    forge(&p, &theirs, &|json| json["signatures"] = json!([by_ben]));
    for name in ["ana", "ben"] {
        let line = format!("require-signature {}", p.read(&format!("keys/{name}.pub")));
        p.change(&line, "");
    }
    p.add("require-signature keys/allowed_signers\n");
    p.run("deploy prod --yes").ok().stderr_has(&format!("{theirs} was signed by ben@example.com"));
    p.write("keys/allowed_signers", "ben valid-after=\"tomorrow\" ssh-ed25519 AAAA\n");
    p.run("deploy prod --yes").fails(2, "keys/allowed_signers: line 1", "docs/signatures.md");
    fs::remove_file(p.path("keys/allowed_signers")).unwrap();
    p.run("deploy prod --yes").fails(2, "cannot read keys/allowed_signers", "docs/signatures.md");
}

#[test]
fn sign_takes_its_key_from_a_variable_a_file_or_the_agent() {
    let mut p = project();
    let mode = fs::metadata(p.path("keys/ana")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner can read it");
    p.run("keygen keys/ana").fails(2, "already exists", "name a new file");
    let id = p.release("1");
    p.run("sign").fails(3, "GANGPLANK_SIGNING_KEY is not set", "keygen FILE");
    p.run("sign --key keys/none").fails(2, "cannot read the key", "keygen FILE");
    p.run("sign --key Cargo.lock").code(2);

    let text = p.read("keys/ana");
    p.var("GANGPLANK_SIGNING_KEY", &text);
    let signed = p.run("sign -v").ok().stdout_has(&format!("{id} signed by SHA256:"));
    let secret = text.lines().nth(2).unwrap();
    assert!(!signed.stderr.contains(secret) && !signed.stdout.contains(secret));
    p.run("sign").ok().stdout_has("was signed already");
    let encoded = String::from_utf8(output_of("base64", &["-w0"], text.as_bytes())).unwrap();
    for (value, done) in [(encoded.as_str(), "signed already"), (&key(&p, "ben"), "signed by")] {
        p.var("GANGPLANK_SIGNING_KEY", value);
        p.run("sign").ok().stdout_has(done);
    }
    let signatures: Value = serde_json::from_str(&p.run("sign --json").ok().stdout).unwrap();
    assert_eq!((&signatures["signatures"], &signatures["already_there"]), (&json!(2), &json!(true)));
    p.run(&format!("verify {id}")).ok();

    // With a passphrase only the agent has it.
    let locked = key(&p, "locked");
    output_of("ssh-keygen", &["-q", "-t", "ed25519", "-N", "long enough", "-C", "", "-f", &locked], b"");
    p.run("sign --key keys/locked").fails(3, "has a passphrase", "ssh-add FILE");
    let socket = p.path("agent");
    let agent = Agent::start(&socket);
    p.var("SSH_AUTH_SOCK", socket.to_str().unwrap());
    fs::rename(p.path("keys/eve"), p.path("keys/moved")).unwrap();
    p.run("sign --key keys/eve.pub").fails(3, "ssh-keygen did not sign", "ssh-add -l");
    agent.add(&p.path("keys/moved"));
    fs::remove_file(p.path("keys/moved")).unwrap();
    p.run("sign --key keys/eve.pub").ok().stdout_has("signed by");
    output_of("ssh-keygen", &["-q", "-t", "rsa", "-N", "", "-f", &key(&p, "rsa")], b"");
    p.run("sign --key keys/rsa").code(2);
}

/// An ssh-agent, until dropped.
struct Agent {
    child: std::process::Child,
    socket: PathBuf,
}

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new("ssh-agent");
        let child = command.args(["-D", "-a"]).arg(socket).stdout(Stdio::null()).spawn().unwrap();
        crate::project::eventually("the agent listens", || socket.exists());
        Self { child, socket: socket.to_owned() }
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).status().unwrap();
        assert!(added.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn rollback_to_a_release_of_a_key_that_is_not_trusted_any_more_warns() {
    let mut p = project();
    stored(&p, "1", &["ben"]);
    p.run("deploy prod --yes").ok();
    stored(&p, "2", &["ana"]);
    p.run("deploy prod --yes").ok();
    let line = format!("require-signature {}", p.read("keys/ben.pub"));
    p.change(&line, "");
    p.run("rollback prod --yes")
        .ok()
        .stderr_has("what prod would refuse in a deploy")
        .stderr_has("not in `require_signature`");
    assert_eq!(p.live("srv/prod"), "1");
}

#[test]
fn unsigned_copy_in_one_store_does_not_hide_the_signed_one_in_another() {
    let p = project();
    let id = stored(&p, "1", &["ana"]);
    p.run("build").ok();
    p.run(&format!("deploy prod {id} --yes")).ok().stderr_has("was signed by ana");
    // Another build of the same commit, as of a pipeline that runs again, has another manifest.
    let job = [("CIRCLE_BUILD_NUM", "77"), ("CIRCLE_SHA1", &p.git(&["rev-parse", "HEAD"]))];
    let job: Vec<_> = job.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    fs::remove_dir_all(p.path("target/releases").join(&id)).unwrap();
    p.run_with("build", &job).ok();
    p.run(&format!("sign --key {}", key(&p, "ana"))).ok();
    p.run("put --store file:store").ok();
}

#[test]
fn build_scripts_and_other_jobs_do_not_get_the_key() {
    let mut p = with_xtask();
    p.write("shop/build.rs", "fn main() {\n    assert!(std::env::var_os(\"GANGPLANK_SIGNING_KEY\").is_none());\n}\n");
    p.commit("1");
    p.var("GANGPLANK_SIGNING_KEY", "-----BEGIN OPENSSH PRIVATE KEY-----");
    p.run("ci run --yes").ok();
    p.change("env dev\n", "ci-sign shop-dev\nenv dev\ncontext shop-dev\n");
    p.run("ci generate").fails(2, "`sign` names the context shop-dev, which other jobs have too", "context of its own");
}

#[test]
fn put_of_a_signature_that_a_store_lacks_is_refused() {
    let p = project();
    let id = p.release("1");
    p.run("put --store file:store").ok().stderr_has("prod requires a signature, and a stored release never gets one");
    p.run(&format!("sign --key {}", key(&p, "ana"))).ok();
    p.run("put --store file:store").fails(7, &format!("has {id} without its new signature"), "sign before");
    p.run("put --store file:other").ok();
    p.run("put --store file:other").ok();
}

#[test]
fn pipeline_signs_in_a_job_that_compiles_nothing() {
    let mut p = with_xtask();
    p.write(".gitignore", &format!("{}/keys\n", fs::read_to_string(p.path(".gitignore")).unwrap_or_default()));
    fs::create_dir(p.path("keys")).unwrap();
    p.run("keygen keys/ci").ok();
    let public = p.read("keys/ci.pub");
    p.add(&format!("require-signature {public}"));
    p.change("env dev\n", "ci-sign shop-signing\nenv dev\n");
    p.run("ci generate").ok();
    let config = p.read(".circleci/config.yml");
    let job =
        |name: &str| config.split(&format!("\n      - {name}:\n")).nth(1).unwrap().split("\n      - ").next().unwrap();
    assert!(job("sign").contains("context: [shop-signing]") && job("sign").contains("== \"main\""), "{config}");
    assert!(!job("build").contains("shop-signing") && job("deploy-dev").contains("requires: [sign]"), "{config}");
    p.commit("1");
    p.run("ci run --yes").fails(3, "job `sign` failed", "see its output");
    p.var("GANGPLANK_SIGNING_KEY", &p.read("keys/ci"));
    p.run("ci run --yes").ok().stdout_has("sign");
    assert_eq!(p.get("prod").unwrap(), "1");

    p.change(
        "store circleci:workspace\n",
        "store circleci:workspace\nstore s3://builds/shop\nci-context shop-ci\nhandoff s3\n",
    );
    if cfg!(feature = "s3") {
        p.run("ci generate").ok();
        p.commit("2");
        p.var("GANGPLANK_BUCKETS", p.path("buckets").to_str().unwrap());
        p.run("ci run --yes").ok();
        assert_eq!(p.get("prod").unwrap(), "2");
    }
    p.change("handoff s3\n", "handoff artifacts\nstore circleci:artifacts\n");
    p.run("ci generate").fails(2, "runs on every branch, and compiles", "workspace or s3");
}
