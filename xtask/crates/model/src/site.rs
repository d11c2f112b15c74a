//! A static site in a bucket: the order in which its files are switched, and what may be removed afterwards.
//!
//! A browser that loads a page while it is switched must get every file that the page names. So files with a digest in their
//! name come first, pages last, and what only the old release has stays for a while.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How an env serves a release as a site. Only targets `site+...` read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The directory of the release that is served: `public`; all of it if empty.
    pub root: &'static str,
    /// `Cache-Control` by a pattern of the path below `root`: `("*.pdf", "max-age=86400")`. The first match counts.
    /// Without one, files with a digest in their name are kept for a year, and all others are checked each time.
    pub cache: &'static [(&'static str, &'static str)],
    /// How long a file that the live release no longer has is still served.
    pub grace: Duration,
}

impl Site {
    /// The whole release, default headers, an hour of grace.
    pub const DEFAULT: Self = Self { root: "", cache: &[], grace: Duration::from_secs(3600) };
}

/// `Cache-Control` of files with a digest in their name.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// `Cache-Control` of all others.
pub const CHECKED: &str = "no-cache";

/// The objects that serve a release: path below the site's root, and the key of the stored content.
pub type Served = BTreeMap<String, String>;

/// The path below the site's root; `None` if a file is not served.
pub fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    match root.trim_matches('/') {
        "" => Some(path),
        root => path.strip_prefix(root)?.strip_prefix('/'),
    }
}

/// What a switch writes, in this order, and what is no longer needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switch {
    /// Files with a digest in their name, other files, then pages: path and key of the content.
    pub phases: [Vec<(String, String)>; 3],
    /// Paths that only the old releases have.
    pub outdated: Vec<String>,
}

/// The switch to a release from what is served now. After a switch that did not end, `others` are the releases that it was
/// about: any path may have any content, so every file is written again.
pub fn switch(live: Option<&Served>, others: &[&Served], to: &Served) -> Switch {
    let mut switch = Switch::default();
    for (path, key) in to {
        if !others.is_empty() || live.is_none_or(|live| live.get(path) != Some(key)) {
            switch.phases[phase(path)].push((path.clone(), key.clone()));
        }
    }
    let old: BTreeSet<_> = live.into_iter().chain(others.iter().copied()).flat_map(|served| served.keys()).collect();
    switch.outdated = old.into_iter().filter(|path| !to.contains_key(*path)).cloned().collect();
    switch
}

fn phase(path: &str) -> usize {
    if is_page(path) { 2 } else { usize::from(!has_digest(path)) }
}

/// Whether a file is a page, which names others.
pub fn is_page(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    [".html", ".htm", ".xhtml"].into_iter().any(|end| path.ends_with(end))
}

/// Whether a file has a digest of its content in its name: `app.3f9ac01e.js`, `index-DiwrgT4a.css`. Wrong guesses would
/// be cached for a year, so a part of the name counts only if it cannot be a word or a date.
pub fn has_digest(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let mut parts = stem.split(['.', '-', '_']);
    parts.next();
    parts.any(|part| {
        let has = |kind: fn(&u8) -> bool| part.bytes().any(|byte| kind(&byte));
        let (digit, lower, upper) = (has(u8::is_ascii_digit), has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
        let is_hex = part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let is_word = part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        part.len() >= 8 && is_word && digit && lower && (is_hex || upper)
    })
}

/// The outdated paths in the place of whose directory a file has to be written.
pub fn in_the_way<'a>(switch: &'a Switch, to: &'a Served) -> impl Iterator<Item = &'a String> {
    let is_file = |path: &&String| path.match_indices('/').any(|(at, _)| to.contains_key(&path[..at]));
    switch.outdated.iter().filter(is_file)
}

/// Paths that are no longer part of the live release, and since when.
pub type Outdated = BTreeMap<String, Timestamp>;

/// Adds the paths of a switch. One that is served again is taken off.
pub fn outdated(mut known: Outdated, switch: &Switch, to: &Served, now: Timestamp) -> Outdated {
    known.retain(|path, _| !to.contains_key(path));
    for path in &switch.outdated {
        known.entry(path.clone()).or_insert(now);
    }
    known
}

/// The paths whose grace has passed.
pub fn due(known: &Outdated, grace: Duration, now: Timestamp) -> Vec<String> {
    let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let passed = |since: &Timestamp| now.as_second().saturating_sub(since.as_second()) >= grace;
    known.iter().filter(|(_, since)| passed(since)).map(|(path, _)| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(text: &str) -> Served {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
    }

    #[test]
    fn digests_in_names_are_no_words_and_no_dates() {
        for (path, want) in [
            ("assets/app.3f9ac01e.js", true),
            ("index-DiwrgT4a.css", true),
            ("a/b/chunk.0a1b2c3d4e5f6071.mjs", true),
            ("app.js", false),
            ("main-component.js", false),
            ("photo-20260801.jpg", false),
            ("report-2026summary.pdf", false),
            ("3f9ac01e.js", false),
            ("jquery-3.7.1.min.js", false),
            ("x.deadbeef.js", false),
            ("x-3f9ac01e", false),
            ("assets-3f9ac01e/app.js", false),
        ] {
            assert_eq!(has_digest(path), want, "{path}");
        }
    }

    #[test]
    fn switch_writes_digests_first_and_pages_last_and_only_what_differs() {
        let old = served("index.html=1 app.css=2 app.3f9ac01e.js=3 same.txt=4 gone.txt=5");
        let new = served("index.html=9 app.css=8 app.77aac01e.js=7 same.txt=4");
        let names = |switch: &Switch| switch.phases.iter().map(Vec::len).collect::<Vec<_>>();
        let plan = switch(Some(&old), &[], &new);
        assert_eq!(names(&plan), [1, 1, 1]);
        assert_eq!(plan.phases[0], [("app.77aac01e.js".to_owned(), "7".to_owned())]);
        assert_eq!(plan.phases[2], [("index.html".to_owned(), "9".to_owned())]);
        assert_eq!(plan.outdated, ["app.3f9ac01e.js", "gone.txt"]);
        assert_eq!(names(&switch(None, &[], &new)), [1, 2, 1]);
        assert_eq!(switch(Some(&new), &[], &new), Switch::default());
        // A switch from old to new did not end: everything is written again, whichever way.
        let back = switch(Some(&old), &[&new], &old);
        assert_eq!((names(&back), back.outdated), (vec![1, 3, 1], vec!["app.77aac01e.js".to_owned()]));
        let on = switch(Some(&old), &[&new], &new);
        assert_eq!(
            (names(&on), on.outdated),
            (vec![1, 2, 1], vec!["app.3f9ac01e.js".to_owned(), "gone.txt".to_owned()])
        );
        assert_eq!(names(&switch(None, &[&new], &new)), [1, 2, 1], "the first switch did not end");
    }

    #[test]
    fn outdated_files_below_a_path_that_is_a_file_now_are_in_the_way() {
        let (old, new) = (served("docs/a/b=1 docs2/a=1 x=1"), served("docs=2 x=1"));
        let plan = switch(Some(&old), &[], &new);
        assert_eq!(in_the_way(&plan, &new).collect::<Vec<_>>(), ["docs/a/b"]);
    }

    #[test]
    fn outdated_paths_are_due_after_their_grace_unless_they_come_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (old, new) = (served("a=1 b=1"), served("a=1"));
        let known = outdated(Outdated::new(), &switch(Some(&old), &[], &new), &new, at(100));
        let hour = Duration::from_secs(3600);
        assert!(due(&known, hour, at(3699)).is_empty());
        assert_eq!(due(&known, hour, at(3700)), ["b"]);
        assert!(due(&known, Duration::MAX, at(9_000_000)).is_empty());
        let again = outdated(known.clone(), &switch(Some(&old), &[], &new), &new, at(500));
        assert_eq!(again, known, "the first time counts");
        assert!(outdated(known, &switch(Some(&new), &[], &old), &old, at(600)).is_empty());
    }

    #[test]
    fn root_of_the_site_is_stripped() {
        for (root, path, want) in [
            ("", "a/b", Some("a/b")),
            ("public", "public/a", Some("a")),
            ("public/", "public/a/b", Some("a/b")),
            ("public", "publication/a", None),
            ("public", "bin/app", None),
        ] {
            assert_eq!(below(root, path), want, "{root} {path}");
        }
    }
}
