//! Reboots and power cuts.

use super::World;
use crate::project::eventually;

/// What systemd runs comes back; what the keeper started does not, and `status` says so.
pub fn reboot(w: &mut World) {
    let before: Vec<_> = ["sudo", "user", "system"].map(|env| w.says(env)).into();
    w.vm.reboot();
    for (env, text) in ["sudo", "user", "system"].into_iter().zip(before) {
        eventually(&format!("the service of {env} is back"), || w.says(env) == text);
        w.p.run(&format!("status {env}")).ok().has("running");
        w.p.run(&format!("deploy {env}")).code(0);
    }
    w.p.run("status box").ok().has("stopped");
    w.p.run("deploy box").ok();
    w.p.run("status box").ok().has("running");
}

/// Exit code 0 means that all of it is on the disk.
pub fn cut_after_deploy(w: &mut World) {
    for env in ["system", "user", "sudo"] {
        w.p.release(&format!("{env} 20"));
        w.p.run(&format!("deploy {env}")).ok();
    }
    let id = w.p.release("sudo 21");
    w.p.run("deploy sudo").ok();
    w.vm.cut_power();
    w.vm.boot();
    whole(w);
    let history = w.vm.sh("cat /srv/app/history.jsonl");
    let live = history.lines().filter(|line| line.contains(&id) && line.contains("\"event\":\"live\"")).count();
    assert_eq!(live, 1, "{history}");
    eventually("the service is back", || w.says("sudo") == "sudo 21");
    w.p.run("status sudo").ok().has(&id).has("running");
    goes_on(w);
}

/// The new release is live and not yet healthy when the power goes.
pub fn cut_during_deploy(w: &mut World) {
    w.p.release("sudo 30");
    w.p.run("deploy sudo").ok();
    let good = std::fs::read(w.p.path("bin/app")).unwrap();
    w.p.write_program("bin/app", "#!/bin/sh\nexec sleep 600\n");
    let id = w.p.release("sudo 31");
    std::fs::write(w.p.path("bin/app"), good).unwrap();
    let deploy = w.p.start("deploy sudo");
    eventually("it is switched", || w.vm.sh("readlink /srv/app/current").ends_with(&id));
    w.vm.cut_power();
    let ended = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{said}");
    w.vm.boot();
    whole(w);
    let status = w.p.run("status sudo").ok();
    eprintln!("after the power cut: {}", status.stdout);
    goes_on(w);
}

/// No file of the engine is empty or holds zero bytes, and units are what was written.
fn whole(w: &World) {
    let look = "cd $0; find . -maxdepth 1 -type f; find service releases/*/.gangplank -type f ! -name socket";
    for (root, unit) in [("/srv/app", "shop"), ("/srv/system", "web")] {
        let empty = format!("for f in $(sh -c '{look}' {root}); do [ -s {root}/$f ] || echo $f; done");
        assert_eq!(w.vm.sh(&empty), "", "empty files in {root}");
        let zeros = format!("for f in $(sh -c '{look}' {root}); do [ $(tr -dc '\\0' < {root}/$f | wc -c) = 0 ] || echo $f; done");
        assert_eq!(w.vm.sh(&zeros), "", "files with zero bytes in {root}");
        w.vm.sh(&format!("cmp {root}/service/unit /etc/systemd/system/{unit}.service"));
    }
    for env in ["sudo", "user", "system"] {
        w.p.run(&format!("verify @{env}")).ok();
    }
}

/// A deploy and a rollback work as ever.
fn goes_on(w: &World) {
    w.p.release("sudo 40");
    w.p.run("deploy sudo").ok();
    assert_eq!(w.says("sudo"), "sudo 40");
    w.p.run("rollback sudo").ok();
    assert_ne!(w.says("sudo"), "sudo 40");
    w.p.run("status sudo").ok().has("running");
    w.p.run("deploy sudo").ok();
}
