//! Cases of a machine that runs: the contract, the story of each manager, the clock, the disk.

use super::Fixture;
use crate::parts::ctx;
use gangplank_bundle::delta::Changes;
use gangplank_deploy::host::Delivery;
use gangplank_deploy::tool::Tool;
use std::time::SystemTime;

/// What every target promises, in a directory that has to be quoted.
pub fn contract(w: &mut Fixture, login: &str) {
    w.vm.sh(&format!("install -d -o {login} -g {login} /srv/contract-{login}"));
    let dir = w.p.path("contract").join(login);
    std::fs::create_dir_all(dir.join(".circleci")).unwrap();
    std::fs::copy(w.p.path(".circleci/known_hosts"), dir.join(".circleci/known_hosts")).unwrap();
    let changes: &Changes = Box::leak(Box::default());
    let ctx = ctx(&dir).with_vars([("PATH".to_owned(), w.vm.path())]);
    let url = w.vm.target(login, &format!("/srv/contract-{login}/with space/it's"));
    crate::host::contract(&ctx, &dir, &*Tool::bare(&ctx, &crate::parts::PROJECT).target(&url).unwrap(), &|release| {
        Delivery::Push(release, changes)
    });
    std::fs::remove_dir_all(w.p.path("contract")).unwrap();
}

/// From the first deploy to a prune.
pub fn story(w: &mut Fixture, env: &str) {
    let text = |n: u32| format!("{env} {n}");
    let one = w.p.release(&text(1));
    w.p.run(&format!("deploy {env}")).ok();
    assert_eq!(w.answer_of(env), text(1));
    let two = w.p.release(&text(2));
    w.p.run(&format!("deploy {env}")).ok().stderr_has("bytes sent of");
    assert_eq!(w.answer_of(env), text(2));
    w.p.run(&format!("status {env}")).ok().stdout_has(&two).stdout_has("running");
    fails_at_its_start(w, env, "story");
    assert_eq!(w.answer_of(env), text(2));
    w.p.run(&format!("status {env}")).ok().stdout_has(&two).stdout_has("running");
    w.p.run(&format!("rollback {env}")).ok();
    assert_eq!(w.answer_of(env), text(1));
    w.p.run(&format!("prune {env} --keep 1")).ok();
    w.p.run(&format!("verify @{env}")).ok();
    w.p.run(&format!("logs {env}")).ok().stdout_has("listening on");
    w.p.run(&format!("status {env}")).ok().stdout_has(&one).stdout_has("running");
}

/// Deploys a release that ends at once, which is reverted. Gives what the deploy told.
fn fails_at_its_start(w: &mut Fixture, env: &str, mark: &str) -> String {
    let good = std::fs::read(w.p.path("bin/app")).unwrap();
    w.p.write_program("bin/app", &format!("#!/bin/sh\necho cannot start: {mark} >&2\nexit 1\n"));
    w.p.release(&format!("broken {mark}"));
    let ran = w.p.run(&format!("deploy {env}"));
    std::fs::write(w.p.path("bin/app"), good).unwrap();
    ran.fails(1, "is live again", "deploy again").stderr_has(&format!("cannot start: {mark}")).stderr
}

/// Files that are the same there are not sent, and of a large one only what is new.
pub fn busybox_changes(w: &mut Fixture) {
    w.vm.sh("! PATH=/opt/busybox/bin tar -cf /dev/null -T /dev/null 2> /dev/null");
    let mut app = std::fs::read(w.p.path("bin/app")).unwrap();
    app.extend_from_slice(b"and more");
    std::fs::write(w.p.path("bin/app"), app).unwrap();
    w.p.release("box 3");
    w.p.run("deploy box").ok().stderr_has(", and most of 1 more").stderr_lacks("sending the whole release");
    assert_eq!(w.answer_of("box"), "box 3");
    w.p.run("verify @box").ok();
}

/// The log of a start is that of this start, whatever the clock was before.
pub fn clock(w: &mut Fixture, env: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let day = 24 * 60 * 60;
    let mut fails_at = |time: u64, mark: &str| {
        w.vm.sh(&format!("date -s @{time}"));
        fails_at_its_start(w, env, mark)
    };
    fails_at(now, "today");
    let yesterday = fails_at(now - day, "yesterday");
    assert!(!yesterday.contains("cannot start: today"), "{yesterday}");
    let tomorrow = fails_at(now + day, "tomorrow");
    assert!(!tomorrow.contains("cannot start: yesterday"), "{tomorrow}");
    w.p.run(&format!("status {env}")).ok().stdout_has("running");
}

/// Not a block is left for a login that is not root.
pub fn full_disk(w: &mut Fixture) {
    let fill = "n=0; while room=$(df -k --output=avail / | tail -n 1) && [ $room -gt 0 ] && [ $n -lt 50 ]; do
  fallocate -l ${room}k /fill.$(date +%s%N) || fallocate -l 4k /fill.$(date +%s%N) || true; n=$((n + 1)); done; df -k --output=avail / | tail -n 1";
    for env in ["sudo", "box"] {
        let (one, two) = (format!("{env} 10"), format!("{env} 11"));
        w.p.release(&one);
        w.p.run(&format!("deploy {env}")).ok();
        w.p.release(&two);
        w.p.run(&format!("deploy {env}")).ok();
        // Noise, so that there is much to send.
        w.p.write("www/noise", &crate::ci::faults::noise(1 << 20));
        w.p.release(&format!("{env} 12"));
        assert_eq!(w.vm.sh(fill).trim(), "0");
        w.p.run(&format!("deploy {env}")).fails(1, "No space left", "make room");
        assert_eq!(w.answer_of(env), two);
        w.vm.sh(fill);
        w.p.run(&format!("status {env}")).ok().stdout_has("running");
        w.p.run(&format!("rollback {env}")).ok();
        assert_eq!(w.answer_of(env), one);
        w.vm.sh(fill);
        w.p.run(&format!("prune {env} --keep 1")).ok();
        w.vm.sh("rm -f /fill.*");
        std::fs::remove_file(w.p.path("www/noise")).unwrap();
        w.p.release(&format!("{env} 13"));
        w.p.run(&format!("deploy {env}")).ok();
        assert_eq!(w.answer_of(env), format!("{env} 13"));
    }
}
