//! Reboots and power cuts.

use super::{World, soon};

/// What systemd runs comes back; what the keeper started does not, and `status` says so.
pub fn reboot(w: &mut World) {
    let before: Vec<_> = ["sudo", "user", "system"].map(|env| w.says(env)).into();
    w.vm.reboot();
    for (env, text) in ["sudo", "user", "system"].into_iter().zip(before) {
        soon(&format!("the service of {env} is back"), || w.says(env) == text);
        w.p.run(&format!("status {env}")).ok().has("running");
    }
    w.p.run("status box").ok().has("stopped");
    w.p.run("deploy box").ok();
    w.p.run("status box").ok().has("running");
}

/// Exit code 0 means that all of it is on the disk.
pub fn cut_after_deploy(w: &mut World) {
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
    whole(w);
    soon("the service is back", || w.says("sudo") == "sudo 20");
    w.p.run("status sudo").ok().has(&ids[1]).has("running");
    w.p.run("status box").ok().has(&ids[0]).has("stopped");
    for env in ["box", "sudo"] {
        goes_on(w, env);
    }
}

/// The new release is live and not yet healthy when the power goes.
pub fn cut_during_deploy(w: &mut World) {
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
    // It hears of the cut by itself, and neither knows whether the release became healthy nor can put it back.
    assert_eq!(ended.status.code(), Some(9), "{said}");
    w.vm.boot();
    whole(w);
    let status = w.p.run("status sudo").ok();
    eprintln!("after the power cut: {}", status.stdout);
    goes_on(w, "sudo");
}

/// No file of the engine is empty or holds zero bytes, and units are what was written. What the app prints is its own.
fn whole(w: &World) {
    let damaged = "cd $root; find . -maxdepth 1 -type f -print; find service releases/*/.gangplank -type f ! -name socket ! -name log -print";
    for root in ["/srv/app", "/srv/system", "/srv/own", "/srv/box"] {
        let look = format!(
            "root={root}; for f in $({damaged}); do
  [ -s $root/$f ] || echo \"$root/$f is empty\"
  [ $(tr -dc '\\0' < $root/$f | wc -c) = 0 ] || echo \"$root/$f has zero bytes\"
done"
        );
        assert_eq!(w.vm.sh(&look), "");
    }
    for (root, unit) in [
        ("/srv/app", "/etc/systemd/system/shop.service"),
        ("/srv/system", "/etc/systemd/system/web.service"),
        ("/srv/own", "/home/deploy/.config/systemd/user/own.service"),
    ] {
        w.vm.sh(&format!("cmp {root}/service/unit {unit}"));
    }
    for env in super::ENVS {
        w.p.run(&format!("verify @{env}")).ok();
    }
}

/// A deploy and a rollback work as ever.
fn goes_on(w: &World, env: &str) {
    let text = format!("{env} goes on");
    w.p.release(&text);
    w.p.run(&format!("deploy {env}")).ok();
    assert_eq!(w.says(env), text);
    w.p.run(&format!("rollback {env}")).ok();
    assert_ne!(w.says(env), text);
    w.p.run(&format!("status {env}")).ok().has("running");
}
