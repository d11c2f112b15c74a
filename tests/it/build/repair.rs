//! Damaged releases of a store and of a build.

use crate::project::Project;
use std::fs;

#[test]
fn put_and_build_replace_damaged_releases() {
    let p = Project::new();
    let id = p.release("1");
    p.run("put").ok().stdout_has("stored");
    let damage = |dir: &str| {
        let path = p.path(&format!("{dir}/{id}/shop-{id}.tar.gz"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    damage("store");
    p.run("put").ok().stdout_has("stored").stderr_has("replacing a damaged release");
    p.run("put").ok().stdout_has("already has it");
    damage("target/releases");
    p.run("build").ok().stdout_has(" built: ");
    p.run(&format!("verify {id}")).ok();
}
