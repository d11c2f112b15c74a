//! Groups of tests that `cargo xtask test` skips because they take minutes or need large packages.
//!
//! A test belongs to a group if it is `#[ignore]`d and a segment of its path is the group's name:
//! `fleet::kill::deploy_to_three_hosts` is in `kill`. So cargo can also run a group: `cargo test --package xtask
//! --all-features --test it -- --ignored kill::`.

use gangplank_model::error::{Result, usage};
use serde::Serialize;

/// A group of tests.
#[derive(Debug)]
pub struct Group {
    /// The name, a segment of its tests' paths.
    pub name: &'static str,
    /// A description.
    pub about: &'static str,
    /// Wall time on two cores with everything compiled, rounded up.
    pub minutes: u32,
    /// Programs that its tests need: see `tools` for the Debian package of each.
    pub programs: &'static [&'static str],
    /// The npm package that its tests need: name and version.
    pub npm: Option<(&'static str, &'static str)>,
}

/// The groups of this repository.
pub const GROUPS: &[Group] = &[
    Group {
        name: "histories",
        about: "random histories of commands that are killed",
        minutes: 1,
        programs: &[],
        npm: None,
    },
    Group { name: "kill", about: "a deploy that is killed at every point", minutes: 1, programs: &[], npm: None },
    Group { name: "power", about: "a host whose power is cut at every point", minutes: 9, programs: &[], npm: None },
    Group { name: "bucket", about: "buckets on a real S3 server", minutes: 8, programs: CEPH, npm: None },
    Group {
        name: "azure",
        about: "containers on Azurite",
        minutes: 1,
        programs: &[],
        npm: Some(("azurite", "3.35.0")),
    },
    Group { name: "logins", about: "hostile shells and profiles of logins", minutes: 3, programs: &[], npm: None },
    Group { name: "handoffs", about: "new projects that deliver themselves", minutes: 12, programs: &[], npm: None },
    Group {
        name: "adopt",
        about: "an xtask for crates that others wrote, and without parts of the engine",
        minutes: 5,
        programs: &[],
        npm: None,
    },
    Group { name: "docs", about: "the commands of the README and the guides", minutes: 12, programs: &[], npm: None },
    Group { name: "growth", about: "many releases, files and bytes", minutes: 3, programs: &[], npm: None },
    Group {
        name: "browser",
        about: "the release report in Chromium",
        minutes: 1,
        programs: &["chromium", "chromedriver"],
        npm: Some(("axe-core", "4.14.1")),
    },
    Group { name: "vm", about: "a virtual machine, its reboots and power cuts", minutes: 14, programs: VM, npm: None },
];

const VM: &[&str] = &["debootstrap", "mke2fs", "qemu-system-x86_64"];
const CEPH: &[&str] = &["radosgw", "ceph-mon", "ceph-osd"];

/// A test of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grouped {
    /// The group.
    pub group: &'static str,
    /// Full name of the test.
    pub test: String,
}

/// The names as a list for messages.
pub fn names(groups: &[&Group]) -> String {
    match groups {
        [] => "none".to_owned(),
        groups => groups.iter().map(|group| group.name).collect::<Vec<_>>().join(", "),
    }
}

/// The groups among `all` with these names; all of them without names.
pub fn named(all: &'static [Group], names: &[String]) -> Result<Vec<&'static Group>> {
    let find = |name: &String| match all.iter().find(|group| group.name == name) {
        Some(group) => Ok(group),
        None => usage(format!("there is no group of tests `{name}`"))
            .hint(format!("groups are {}", self::names(&all.iter().collect::<Vec<_>>())))
            .err(),
    };
    if names.is_empty() { Ok(all.iter().collect()) } else { names.iter().map(find).collect() }
}

/// Groups the tests that a harness lists as ignored, one `NAME: test` per line.
pub fn sort(all: &'static [Group], listing: &str) -> Result<Vec<Grouped>> {
    let tests = listing.lines().filter_map(|line| line.strip_suffix(": test"));
    let grouped = tests.map(|test| {
        let group = all.iter().find(|group| test.split("::").any(|segment| segment == group.name));
        match group {
            Some(group) => Ok(Grouped { group: group.name, test: test.to_owned() }),
            None => usage(format!("`{test}` is ignored, but no segment of its path is the name of a group"))
                .hint("move it into a module named like its group: docs/testing.md")
                .err(),
        }
    });
    let mut grouped = grouped.collect::<Result<Vec<_>>>()?;
    let place = |it: &Grouped| all.iter().position(|group| group.name == it.group);
    grouped.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.test.cmp(&b.test)));
    Ok(grouped)
}

/// The groups for one CI run, and the others. Starts with a different group at each commit, so that all run every few
/// commits.
pub fn rotation(all: &'static [Group], commit: usize, minutes: u32) -> (Vec<&'static Group>, Vec<&'static Group>) {
    let mut left = minutes;
    let turn = all.iter().cycle().skip(commit % all.len().max(1)).take(all.len());
    turn.partition(|group| {
        let fits = group.minutes <= left;
        left -= if fits { group.minutes } else { 0 };
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &[Group] = &[group("a", 4), group("b", 5), group("c", 12)];

    const fn group(name: &'static str, minutes: u32) -> Group {
        Group { name, about: "", minutes, programs: &[], npm: None }
    }

    #[test]
    fn rotation_begins_with_another_group_at_each_commit() {
        for (commit, minutes, run, left) in [
            (0, 12, "a b", "c"),
            (1, 12, "b a", "c"),
            (2, 12, "c", "a b"),
            (3, 12, "a b", "c"),
            (2, 16, "c a", "b"),
            (7, 60, "b c a", ""),
            (0, 0, "", "a b c"),
        ] {
            let names = |groups: Vec<&Group>| groups.iter().map(|it| it.name).collect::<Vec<_>>().join(" ");
            let (taken, rest) = rotation(GROUPS, commit, minutes);
            assert_eq!((names(taken), names(rest)), (run.into(), left.into()), "{commit} {minutes}");
        }
        assert!(rotation(&[], 3, 9).0.is_empty());
    }

    #[test]
    fn tests_are_in_the_group_that_their_path_names() {
        let listing = "c::z: test\nfleet::a::y: test\na::x: test\n\n3 tests, 0 benchmarks\n";
        let sorted: Vec<_> =
            sort(GROUPS, listing).unwrap().into_iter().map(|it| format!("{} {}", it.group, it.test)).collect();
        assert_eq!(sorted, ["a a::x", "a fleet::a::y", "c c::z"]);
        let error = sort(GROUPS, "ab::x: test\n").unwrap_err();
        assert!(error.to_string().contains("`ab::x` is ignored"), "{error}");
    }

    #[test]
    fn groups_are_found_by_name() {
        let names = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            named(GROUPS, &words).map(|found| found.iter().map(|it| it.name).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&[]).unwrap(), "a b c");
        assert_eq!(names(&["c", "a"]).unwrap(), "c a");
        assert_eq!(names(&["d"]).unwrap_err().to_string(), "there is no group of tests `d`");
    }
}
