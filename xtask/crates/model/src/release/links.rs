//! Resolves the links of a release like a kernel: `path_resolution(7)`.

use crate::release::manifest::{Content, FileEntry};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The maximum number of path parts looked up for all links of a manifest, to bound the time.
const STEPS_MAX: usize = 1 << 20;
/// The maximum bytes of the paths of all directories.
const DIRS_BYTES_MAX: usize = 8 << 20;
/// The maximum number of links in the resolution of a path, as in Linux: `path_resolution(7)`.
const LINKS_MAX: usize = 40;

/// The files of a manifest and their parent directories, by path.
pub struct Tree<'a> {
    entries: BTreeMap<&'a str, &'a Content>,
    dirs: BTreeSet<&'a str>,
}

impl<'a> Tree<'a> {
    /// Fails if a file or a link is in the place of a directory.
    pub fn new(files: &'a [FileEntry]) -> Result<Self, String> {
        let entries: BTreeMap<_, _> = files.iter().map(|file| (file.path.as_str(), &file.content)).collect();
        let (mut dirs, mut bytes) = (BTreeSet::new(), 0);
        for path in entries.keys() {
            for (at, _) in path.match_indices('/') {
                let above = &path[..at];
                match entries.get(above) {
                    None => {}
                    Some(Content::Link(_)) => {
                        return Err(format!("`{path}` is below the link `{above}`"));
                    }
                    Some(Content::Sha256(_)) => return Err(format!("`{path}` is below `{above}`, which is a file")),
                }
                if dirs.insert(above) {
                    bytes += above.len();
                }
            }
        }
        if bytes > DIRS_BYTES_MAX {
            return Err("its directories have too many or too long names".into());
        }
        Ok(Self { entries, dirs })
    }

    /// Fails for links that leave the bundle, dangle, or form a loop.
    pub fn check_links(&self) -> Result<(), String> {
        let mut links = Links { tree: self, known: HashMap::new(), steps: 0 };
        for (path, content) in &self.entries {
            if let Content::Link(to) = content {
                links.follow(path, to, 1).map_err(|reason| format!("link `{path}` {reason}"))?;
            }
        }
        Ok(())
    }
}

/// The links of a tree, each resolved once, step by step.
struct Links<'a> {
    tree: &'a Tree<'a>,
    /// The target of each link and the number of links to it; `None` while it is being resolved.
    known: HashMap<String, Option<(String, usize)>>,
    /// Number of path parts looked up.
    steps: usize,
}

impl Links<'_> {
    /// Resolves a link to a path without links, and the number of links to it. `depth` links lead here.
    fn follow(&mut self, path: &str, to: &str, depth: usize) -> Result<(String, usize), &'static str> {
        match self.known.get(path) {
            Some(Some(known)) => return Ok(known.clone()),
            Some(None) => return Err("is part of a loop"),
            None => {}
        }
        if depth > LINKS_MAX {
            return Err("leads through too many links");
        }
        self.known.insert(path.to_owned(), None);
        let dir = path.rfind('/').map_or("", |at| &path[..at]);
        let found = self.walk(dir, to, depth)?;
        self.known.insert(path.to_owned(), Some(found.clone()));
        Ok(found)
    }

    fn walk(&mut self, dir: &str, to: &str, depth: usize) -> Result<(String, usize), &'static str> {
        let (mut at, mut links, mut in_dir) = (dir.to_owned(), 1, true);
        for part in to.split('/') {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err("exceeds the limits of links");
            }
            match part {
                _ if !in_dir => return Err("leads through a file"),
                "" | "." => continue,
                ".." if at.is_empty() => return Err("leaves the bundle"),
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                name => {
                    if !at.is_empty() {
                        at.push('/');
                    }
                    at.push_str(name);
                }
            }
            if let Some(Content::Link(next)) = self.tree.entries.get(at.as_str()) {
                let more;
                (at, more) = self.follow(&at, next, depth + 1)?;
                links += more;
                if links > LINKS_MAX {
                    return Err("leads through too many links");
                }
            }
            in_dir = at.is_empty() || self.tree.dirs.contains(at.as_str());
            if !in_dir && !self.tree.entries.contains_key(at.as_str()) {
                return Err("points to a file that is not in the bundle");
            }
        }
        Ok((at, links))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_as_a_host_does() {
        let check = |links: &[(&str, &str)], reason: &str| {
            let file = |path: &str| FileEntry {
                path: path.into(),
                bytes: 0,
                mode: 0o644,
                content: Content::Sha256(String::new()),
            };
            let link = |(path, to): &(&str, &str)| FileEntry { content: Content::Link((*to).into()), ..file(path) };
            let mut files: Vec<_> = ["bin/app", "d/e/f"].map(file).into_iter().chain(links.iter().map(link)).collect();
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let error = Tree::new(&files).and_then(|tree| tree.check_links()).err().unwrap_or_default();
            assert!(
                error.ends_with(reason) && error.is_empty() == reason.is_empty(),
                "{links:?}: {error}, not {reason}"
            );
        };
        check(&[("l", "bin/app"), ("d/l", "../l"), ("m", "d/./e/../e"), ("n", "m/f"), ("o", ".")], "");
        check(&[("l", "d/e"), ("m", "l/../e/f")], "");
        check(&[("l", "bin/app/x")], "leads through a file");
        check(&[("l", "bin/app"), ("m", "l/..")], "leads through a file");
        check(&[("l", "nothing")], "points to a file that is not in the bundle");
        check(&[("l", "m"), ("m", "l")], "is part of a loop");
        check(&[("l", "l/x")], "is part of a loop");
        check(&[("d/l", "../.."), ("m", "d/e")], "leaves the bundle");
        check(&[("a/b/c/r", "../../.."), ("t", "a/b/c/r/../etc/hostname")], "leaves the bundle");
        let chain = |n: usize| {
            (0..n)
                .map(|n| (format!("l{n:03}"), if n == 0 { "bin".into() } else { format!("l{:03}", n - 1) }))
                .collect::<Vec<_>>()
        };
        let of = |chain: &[(String, String)], reason| {
            check(&chain.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>(), reason);
        };
        of(&chain(LINKS_MAX), "");
        of(&chain(LINKS_MAX + 1), "leads through too many links");
        // Each link leads twice through the one before, so the number doubles.
        let twice: Vec<_> = (0..9)
            .map(|n| (format!("l{n}"), if n == 0 { "d".into() } else { format!("l{0}/../l{0}", n - 1) }))
            .collect();
        of(&twice, "leads through too many links");
        let long: Vec<_> = (0..3000).map(|n| (format!("m{n}"), "d/../".repeat(200) + "bin")).collect();
        of(&long, "exceeds the limits of links");
    }
}
