//! Reboots and power cuts.

use super::{Fixture, soon};

/// What systemd runs comes back; what the pidfile service started does not, and `status` says so.
pub fn reboot(w: &mut Fixture) {
    let before: Vec<_> = ["sudo", "user", "system"].map(|env| w.answer_of(env)).into();
    w.vm.reboot();
    for (env, text) in ["sudo", "user", "system"].into_iter().zip(before) {
        soon(&format!("the service of {env} is back"), || w.answer_of(env) == text);
        w.p.run(&format!("status {env}")).ok().stdout_has("running");
    }
    w.p.run("status box").ok().stdout_has("stopped");
    w.p.run("deploy box").ok();
    w.p.run("status box").ok().stdout_has("running");
}

/// Exit code 0 means that all of it is on the disk.
pub fn cut_after_deploy(w: &mut Fixture) {
    let ids = ["box", "sudo"].map(|env| {
        let id = w.p.release(&format!("{env} 20"));
        w.p.run(&format!("deploy {env}")).ok();
        id
    });
    w.vm.cut_power();
    w.vm.boot();
    for (root, id) in ["/srv/box", "/srv/app"].into_iter().zip(&ids) {
        let history = w.vm.sh(&format!("cat {root}/history.jsonl"));
        let live = history.lines().filter(|line| line.contains(id) && line.contains("\"event\":\"live\"")).count();
        assert_eq!(live, 1, "{root}: {history}");
    }
    whole(w, &super::ENVS);
    for env in super::ENVS {
        w.p.run(&format!("verify @{env}")).ok();
    }
    soon("the service is back", || w.answer_of("sudo") == "sudo 20");
    w.p.run("status sudo").ok().stdout_has(&ids[1]).stdout_has("running");
    w.p.run("status box").ok().stdout_has(&ids[0]).stdout_has("stopped");
    for env in ["box", "sudo"] {
        goes_on(w, env);
    }
}

/// The new release is live and not yet healthy when the power goes.
pub fn cut_during_deploy(w: &mut Fixture) {
    w.p.release("sudo 30");
    w.p.run("deploy sudo").ok();
    let good = std::fs::read(w.p.path("bin/app")).unwrap();
    w.p.write_program("bin/app", "#!/bin/sh\nexec sleep 600\n");
    let id = w.p.release("sudo 31");
    let mut deploy = w.p.start("deploy sudo");
    soon("it is switched", || {
        let switched = w.vm.sh("readlink /srv/app/current").ends_with(&id);
        switched || deploy.try_wait().unwrap().is_some()
    });
    w.vm.cut_power();
    let ended = deploy.wait_with_output().unwrap();
    std::fs::write(w.p.path("bin/app"), good).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    // The deploy notices the power cut, but can neither check the health of the release nor revert it.
    assert_eq!(ended.status.code(), Some(9), "{said}");
    w.vm.boot();
    whole(w, &["sudo"]);
    // It is live, and no deploy has found it healthy.
    w.p.run("status sudo").ok().stdout_has(&id).stdout_has("unconfirmed").stdout_has("the next deploy takes over");
    w.p.run("verify @sudo").fails(5, "runs no healthy release", "cargo xtask deploy sudo");
    goes_on(w, "sudo");
}

/// The directory of each env, and the unit that was installed from it.
const ROOTS: [(&str, &str, Option<&str>); 4] = [
    ("sudo", "/srv/app", Some("/etc/systemd/system/shop.service")),
    ("user", "/srv/own", Some("/home/deploy/.config/systemd/user/own.service")),
    ("system", "/srv/system", Some("/etc/systemd/system/web.service")),
    ("box", "/srv/box", None),
];

/// No file of the engine is empty or holds zero bytes, and units are what was written. What the app prints is its own.
fn whole(w: &Fixture, envs: &[&str]) {
    for (_, root, unit) in ROOTS.into_iter().filter(|(env, ..)| envs.contains(env)) {
        let look = format!(
            "cd {root}
for f in $(find . -maxdepth 1 -type f; find service releases/*/.gangplank -type f ! -name socket); do
  # What is of one process alone ends with it.
  case ${{f##*/}} in process|exit|log|log.start) continue;; esac
  [ -s $f ] || echo \"$f is empty\"
  [ $(tr -dc '\\0' < $f | wc -c) = 0 ] || echo \"$f has zero bytes\"
done"
        );
        assert_eq!(w.vm.sh(&look), "", "{root}");
        if let Some(unit) = unit {
            w.vm.sh(&format!("cmp {root}/service/unit {unit}"));
        }
    }
}

/// A deploy and a rollback work as ever.
fn goes_on(w: &Fixture, env: &str) {
    let text = format!("{env} goes on");
    w.p.release(&text);
    w.p.run(&format!("deploy {env}")).ok();
    assert_eq!(w.answer_of(env), text);
    w.p.run(&format!("rollback {env}")).ok();
    assert_ne!(w.answer_of(env), text);
    w.p.run(&format!("status {env}")).ok().stdout_has("running");
    w.p.run(&format!("verify @{env}")).ok();
}
