//! Releases that are much like the live one: only what differs goes over the wire, and all of it is checked.

use crate::fleet::faults::Proxy;
use crate::fleet::hosts::Fleet;
use crate::fleet::{live, project};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::Ordering;

const MANY: usize = 1 << 40;

#[test]
fn deploy_of_second_release_sends_only_changed_files() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1, "");
    p.write("www/noise", &crate::ci::faults::noise(4 << 20));
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
    ran.stderr_has(" bytes sent of ").stderr_has(&format!("are those of {one}"));
    assert_eq!(live(&fleet, 0), "2");
    p.run("verify @dev").ok();
    let noise = |id: &str| fs::metadata(fleet.srv(0).join(format!("app/releases/{id}/www/noise"))).unwrap();
    assert_ne!(noise(&one).ino(), noise(&two).ino(), "what one release writes is not the other's");
    let same = fleet.srv(0).join(format!("app/releases/{two}/.gangplank/same"));
    assert!(!same.exists());
    // Most of it is new: then all of it is sent.
    let other: String = crate::ci::faults::noise(5 << 20).chars().rev().collect();
    p.write("www/noise", &other);
    p.release("3");
    let (all, _) = sent("deploy dev");
    assert!(all > 3 << 20, "{all}");
    p.run("verify @dev").ok();
}

#[test]
fn deploy_over_edited_live_release_sends_the_whole_release() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1, "");
    p.write("www/noise", &crate::ci::faults::noise(1 << 20));
    let one = p.release("1");
    p.run("deploy dev").ok();
    fs::write(fleet.srv(0).join(format!("app/releases/{one}/www/noise")), "edited").unwrap();
    p.release("2");
    p.run("deploy dev").ok().stderr_has("sending the whole release");
    assert_eq!(live(&fleet, 0), "2");
    p.run("verify @dev").ok();
    fs::remove_file(fleet.srv(0).join("app/current/www/noise")).unwrap();
    p.release("3");
    p.run("deploy dev").ok().stderr_has("sending the whole release");
    p.run("verify @dev").ok();
}

#[test]
fn deploy_of_changed_large_file_sends_a_patch() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = project(&fleet, 2, "");
    let noise = crate::ci::faults::noise(4 << 20);
    p.write("www/noise", &noise);
    p.write_program("www/tool", &format!("#!/bin/sh\n{noise}"));
    let odd = "www/a name of 'two' lines";
    p.write(odd, &noise[..200_000]);
    let one = p.release("1");
    p.run("deploy dev").ok();
    // Something is put in at the beginning of one, and written over in the middle of the other.
    let other = crate::ci::faults::noise(100);
    p.write("www/noise", &format!("{other}{noise}"));
    p.write_program("www/tool", &format!("#!/bin/sh\n{}{other}{}", &noise[..2 << 20], &noise[(2 << 20) + 100..]));
    p.write(odd, &format!("{other}{}", &noise[..200_000]));
    let two = p.release("2");
    let proxy = Proxy::before(&fleet, 0);
    proxy.left.store(MANY, Ordering::SeqCst);
    let ran = p.run("deploy dev").ok();
    let sent = MANY - proxy.left.load(Ordering::SeqCst);
    assert!((150_000..400_000).contains(&sent), "{sent} bytes");
    ran.stderr_has(&format!("are those of {one}, and most of 2 more"));
    p.run("verify @dev").ok();
    let file = |host: usize, id: &str, path: &str| {
        fs::metadata(fleet.srv(host).join(format!("app/releases/{id}/{path}"))).unwrap()
    };
    for host in [0, 1] {
        assert_eq!(file(host, &two, "www/tool").mode() & 0o777, 0o755);
        let times: Vec<_> = ["www/tool", "www/noise", odd].iter().map(|path| file(host, &two, path).mtime()).collect();
        assert_eq!(times, [times[2]; 3], "that of the commit, like any other file's");
        for left in ["same", "patches", "new"] {
            assert!(!fleet.srv(host).join(format!("app/releases/{two}/.gangplank/{left}")).exists(), "{left}");
        }
    }
    // What is here of the older release is another: it is not looked into, and whole files are sent.
    let bundle = p.path(&format!("target/releases/{two}/shop-{two}.tar.gz"));
    let older = p.path(&format!("target/releases/{one}/shop-{one}.tar.gz"));
    fs::copy(&older, &bundle).unwrap();
    p.write("www/noise", &format!("{other}{other}{noise}"));
    let three = p.release("3");
    let ran = p.run("deploy dev").ok().stderr_has(&format!("files are those of {two}"));
    assert!(!ran.stderr.contains("and most of"), "{}", ran.stderr);
    p.run("verify @dev").ok();
    // Nor need it have been built here: a store has it.
    p.run(&format!("put {three}")).ok();
    fs::remove_dir_all(p.path(&format!("target/releases/{three}"))).unwrap();
    p.write("www/noise", &format!("{other}{other}{other}{noise}"));
    p.release("4");
    p.run("deploy dev").ok().stderr_has(&format!("are those of {three}, and most of 1 more"));
    p.run("verify @dev").ok();
    // The largest file shrinks: the one that it replaces is larger than any of the new release.
    p.write("www/noise", &noise);
    p.release("5");
    p.run("deploy dev").ok().stderr_has(", and most of 1 more");
    p.run("verify @dev").ok();
}

/// Puts a program before the real one on the PATH of the hosts: it prints an error and exits with 1 if its arguments match
/// `pattern`, and else runs the real one.
fn refuse(fleet: &Fleet, name: &str, pattern: &str) {
    let own = fleet.file("own");
    fs::create_dir_all(&own).unwrap();
    let refuse = format!("case $* in {pattern}) echo '{name}: what is that?' >&2; exit 1 ;; esac");
    let real = ["/usr/bin", "/bin"].map(|dir| format!("[ ! -x {dir}/{name} ] || exec {dir}/{name} \"$@\"")).join("\n");
    fs::write(own.join(name), format!("#!/bin/sh\n{refuse}\n{real}\n")).unwrap();
    fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn deploy_to_hosts_without_programs_or_options_sends_what_they_can_read() {
    let path = std::env::var("PATH").unwrap();
    let Some(fleet) = Fleet::with_vars(1, &format!("PATH=@dir@/own:{path}")) else { return };
    let p = project(&fleet, 1, "");
    let noise = crate::ci::faults::noise(1 << 20);
    p.write("www/noise", &noise);
    p.write("www/still", "the same in each release");
    p.release("1");
    p.run("deploy dev").ok();
    for (n, (name, pattern, patched)) in [
        // zstd before 1.4.5: its help does not list the option.
        ("zstd", "-H", false),
        // As if memory were short.
        ("zstd", "*patch-from*", false),
        ("zstd", "*", false),
        // BusyBox: the archive is a tar.gz, with patches in it.
        ("tar", "*--zstd*", true),
        ("openssl", "*", true),
        ("cmp", "*", true),
        ("find", "*printf*", true),
        ("xargs", "-0*", false),
    ]
    .into_iter()
    .enumerate()
    {
        refuse(&fleet, name, pattern);
        let number = (n + 2).to_string();
        p.write("www/noise", &format!("{noise}{number}"));
        p.release(&number);
        let ran = p.run("deploy dev").ok();
        assert_eq!(ran.stderr.contains(", and most of 1 more"), patched, "{name} {pattern}: {}", ran.stderr);
        // The host reports everything else with its state, so only these fail first.
        let tried = ["*patch-from*", "-0*"].contains(&pattern);
        assert_eq!(ran.stderr.contains("sending the whole release"), tried, "{name} {pattern}: {}", ran.stderr);
        assert_eq!(live(&fleet, 0), number);
        p.run("verify @dev").ok();
        fs::remove_file(fleet.file("own").join(name)).unwrap();
    }
}

#[test]
fn deploy_from_machine_whose_zstd_fails_sends_gzip() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1, "");
    let noise = crate::ci::faults::noise(1 << 20);
    let own = p.path("own");
    p.write_program("own/zstd", "#!/bin/sh\necho 'zstd: out of memory' >&2\nexit 1\n");
    let path = p
        .command("deploy dev")
        .get_envs()
        .find_map(|(name, path)| path.filter(|_| name == "PATH")?.to_str().map(str::to_owned));
    let vars = [("PATH".to_owned(), format!("{}:{}", own.display(), path.unwrap()))];
    for number in ["1", "2"] {
        p.write("www/noise", &format!("{noise}{number}"));
        p.release(number);
        p.run_with("deploy dev", &vars).ok().stderr_has("zstd: out of memory").stderr_has("sending it as gzip");
        assert_eq!(live(&fleet, 0), number);
        p.run("verify @dev").ok();
    }
}
