//! This project's pipeline on this project's app, from a commit to a rollback, with the `xtask/src/main.rs` that CircleCI
//! runs. It works on a copy of the workspace, under ports and directories of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The workspace, as it lies here.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn pipeline_deploys_reverts_a_broken_release_and_rolls_back() {
    let copy = Copy::new();
    let first = copy.commit("first");
    copy.xtask("build").passes();
    copy.xtask("deploy dev").passes();
    assert!(copy.version().contains(&first), "{} should name {first}", copy.version());
    assert!(copy.xtask("deploy dev").passes().contains("nothing to do"));

    let main = copy.root.join("app/src/main.rs");
    let good = fs::read_to_string(&main).unwrap();
    fs::write(&main, "//! An app that ends at once.\n\nfn main() {\n    std::process::exit(3);\n}\n").unwrap();
    copy.commit("broken");
    copy.xtask("build").passes();
    let said = copy.xtask("deploy dev").fails(1);
    assert!(said.contains("exit code 3") && said.contains("is live again"), "{said}");
    assert!(copy.version().contains(&first), "the first release is back");

    fs::write(&main, good + "\n// A second version.\n").unwrap();
    let second = copy.commit("second");
    copy.xtask("build").passes();
    copy.xtask("deploy dev").passes();
    assert!(copy.version().contains(&second), "the second release is live");
    copy.xtask("rollback dev").passes();
    assert!(copy.version().contains(&first), "the first release is live again");
}

/// A copy of the workspace, with a git of its own, that compiles into the same target directory.
struct Copy {
    root: PathBuf,
    port: u16,
}

/// What a command said, and how it ended.
struct Ended {
    line: String,
    code: Option<i32>,
    said: String,
}

impl Copy {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipeline-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        // What git knows, and what it would know after the next commit.
        let listed = run(Path::new(ROOT), "git", "ls-files --cached --others --exclude-standard -z");
        for path in listed.split('\0').filter(|path| Path::new(ROOT).join(path).is_file()) {
            let to = root.join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(Path::new(ROOT).join(path), to).unwrap();
        }
        run(&root, "git", "init --quiet --initial-branch main");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { root, port }
    }

    /// Commits everything, and gives the commit.
    fn commit(&self, message: &str) -> String {
        run(&self.root, "git", "add --all");
        let who = "-c user.name=Test -c user.email=test@example.com -c commit.gpgsign=false";
        run(&self.root, "git", &format!("{who} commit --quiet --message {message}"));
        run(&self.root, "git", "rev-parse HEAD").trim().to_owned()
    }

    fn xtask(&self, line: &str) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(line.split(' '))
            .current_dir(&self.root)
            .env("DEV_PORT", self.port.to_string())
            .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
            .env_remove("CIRCLECI")
            .env_remove("CIRCLE_SHA1")
            .env_remove("CIRCLE_BRANCH")
            .env_remove("GANGPLANK_HOME")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        Ended { line: line.to_owned(), code: output.status.code(), said }
    }

    /// What the app that is live answers at `/version`.
    fn version(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Copy {
    /// Leaves neither a process nor a file behind, whatever the test did.
    fn drop(&mut self) {
        let kept = fs::read_to_string(self.root.join("target/deploy/dev/service/process")).unwrap_or_default();
        if let Some(group) = kept.split(' ').nth(2) {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Ended {
    #[track_caller]
    fn passes(self) -> String {
        self.fails(0)
    }

    #[track_caller]
    fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "`cargo xtask {}` said:\n{}", self.line, self.said);
        self.said
    }
}

#[track_caller]
fn run(dir: &Path, program: &str, line: &str) -> String {
    let output = Command::new(program).args(line.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
