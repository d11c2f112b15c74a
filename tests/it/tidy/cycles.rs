//! Files of a crate that import each other.

use std::collections::{BTreeMap, BTreeSet};

/// The modules that each module names. The root of the crate is `""`.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// The module that a path in `from` leads into; `None` for paths of other crates.
pub fn resolve(modules: &BTreeSet<String>, from: &str, path: &str) -> Option<String> {
    let mut base = from.to_owned();
    let mut segments: Vec<_> = path.split("::").collect();
    match segments[0] {
        "crate" => {
            base.clear();
            segments.remove(0);
        }
        "self" => {
            segments.remove(0);
        }
        "super" => {
            while segments.first() == Some(&"super") {
                base = base.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned());
                segments.remove(0);
            }
        }
        first if modules.contains(&join(from, first)) => {}
        _ => return None,
    }
    for segment in segments {
        let inner = join(&base, segment);
        if !modules.contains(&inner) {
            break;
        }
        base = inner;
    }
    Some(base)
}

fn join(module: &str, inner: &str) -> String {
    if module.is_empty() { inner.to_owned() } else { format!("{module}::{inner}") }
}

/// Sets of modules that reach each other.
pub fn cycles(imports: &Imports) -> Vec<Vec<String>> {
    let reach: BTreeMap<_, _> = imports.keys().map(|from| (from, reachable(imports, from))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (from, there) in &reach {
        let back = |to: &&String| reach.get(to).is_some_and(|it| it.contains(*from));
        let cycle: Vec<_> = there.iter().filter(back).cloned().collect();
        if cycle.len() > 1 {
            found.insert(cycle);
        }
    }
    found.into_iter().collect()
}

fn reachable(imports: &Imports, from: &str) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(next) = open.pop() {
        for to in imports.get(&next).into_iter().flatten() {
            if seen.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    seen
}

#[test]
fn files_that_reach_each_other_are_found() {
    let modules = ["", "a", "a::b", "c"].map(str::to_owned).into();
    for (from, path, to) in [
        ("a::b", "super::X", Some("a")),
        ("a::b", "crate::c::f", Some("c")),
        ("a", "b::X", Some("a::b")),
        ("a", "self::b", Some("a::b")),
        ("c", "crate::X", Some("")),
        ("c", "std::io", None),
        ("c", "b::X", None),
    ] {
        assert_eq!(resolve(&modules, from, path).as_deref(), to, "{path} in {from}");
    }
    let set = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
    let imports = Imports::from([
        ("a".to_owned(), set(&["b"])),
        ("b".to_owned(), set(&["c"])),
        ("c".to_owned(), set(&["a", "d"])),
        ("d".to_owned(), set(&["e"])),
    ]);
    assert_eq!(cycles(&imports), [["a", "b", "c"]]);
}
