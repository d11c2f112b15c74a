//! Releases that are much like the live one: only what differs goes over the wire, and all of it is checked.

use crate::fleet::faults::Proxy;
use crate::fleet::hosts::Fleet;
use crate::fleet::{live, project};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::Ordering;

const MANY: usize = 1 << 40;

#[test]
fn a_second_release_sends_what_differs() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1, "");
    p.write("www/noise", &crate::faults::noise(4 << 20));
    p.write_program("www/tool", "#!/bin/sh\n");
    for odd in ["-rf", "a b/it's $HOME", "back\\slash", "ü/é", ".hidden"] {
        p.write(&format!("www/{odd}"), odd);
    }
    symlink("noise", p.path("www/link")).unwrap();
    let one = p.release("1");
    let proxy = Proxy::before(&fleet, 0);
    let sent = |line: &str| {
        proxy.left.store(MANY, Ordering::SeqCst);
        let ran = p.run(line).ok();
        (MANY - proxy.left.load(Ordering::SeqCst), ran)
    };
    let (all, _) = sent("deploy dev");
    assert!(all > 3 << 20, "{all}");
    let two = p.release("2");
    let (some, ran) = sent("deploy dev");
    assert!(some < 100_000, "{some} bytes of {all}");
    ran.told(" bytes sent of ").told(&format!("are those of {one}"));
    assert_eq!(live(&fleet, 0), "2");
    p.run("verify @dev").ok();
    let noise = |id: &str| fs::metadata(fleet.srv(0).join(format!("app/releases/{id}/www/noise"))).unwrap();
    assert_ne!(noise(&one).ino(), noise(&two).ino(), "what one release writes is not the other's");
    let same = fleet.srv(0).join(format!("app/releases/{two}/.gangplank/same"));
    assert!(!same.exists());
    // Most of it is new: then all of it is sent.
    p.write("www/noise", &crate::faults::noise(5 << 20));
    p.release("3");
    let (all, _) = sent("deploy dev");
    assert!(all > 3 << 20, "{all}");
    p.run("verify @dev").ok();
}

#[test]
fn a_live_release_that_was_edited_by_hand_is_not_built_upon() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1, "");
    p.write("www/noise", &crate::faults::noise(1 << 20));
    let one = p.release("1");
    p.run("deploy dev").ok();
    fs::write(fleet.srv(0).join(format!("app/releases/{one}/www/noise")), "edited").unwrap();
    p.release("2");
    p.run("deploy dev").ok().told("so all of it is sent");
    assert_eq!(live(&fleet, 0), "2");
    p.run("verify @dev").ok();
    fs::remove_file(fleet.srv(0).join("app/current/www/noise")).unwrap();
    p.release("3");
    p.run("deploy dev").ok().told("so all of it is sent");
    p.run("verify @dev").ok();
}
