//! Parses YAML into a tree with line numbers.
//!
//! The linter needs the line of each value, the difference between `~` and `"~"`, and duplicate keys, which
//! deserialisation drops. So the tree is built from parser events, with aliases and `<<` merge keys resolved. Depth and
//! size are bounded, because a few nested aliases can stand for billions of nodes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use anyhow::{Result, anyhow, bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// Deeper than any real configuration; recursive functions over the tree rely on it.
const DEPTH_MAX: usize = 64;
/// The maximum number of nodes with aliases expanded, ten times the largest public configurations.
const NODES_MAX: usize = 200_000;
/// The maximum number of repairs; each one parses the whole text again.
const PUSHED_MAX: usize = 200;

/// A value and the line (1-based) that it starts on.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) value: Value,
}

/// `plain` means a scalar without quotes, block style or tag: only such a scalar can be null.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A text.
    Scalar {
        /// The text, without quotes.
        text: String,
        /// Whether it stands without quotes, so that it may be a number or `true`.
        plain: bool,
    },
    /// A sequence.
    Seq(Vec<Node>),
    /// Keys and values, as written: a key may be there twice.
    Map(Vec<(Node, Node)>),
}

/// The documents of a stream; empty if it has only comments.
///
/// The parser is strict about flow collections in YAML 1.2, where even a closing bracket must be indented more than its
/// key. Other parsers, including CircleCI's, accept less indentation, and it is common. In flow collections indentation
/// has no meaning, so a rejected line is indented further, and the text is parsed again.
pub fn parse(text: &str) -> Result<Vec<Node>> {
    let mut text = Cow::Borrowed(text);
    let mut pushed = HashSet::new();
    loop {
        match read(&text)? {
            Read::Documents(documents) => return Ok(documents),
            Read::Failed(error) => {
                let line = error.marker().line();
                let is_worth_it = is_too_far_left(&error) && pushed.len() < PUSHED_MAX && pushed.insert(line);
                match push_right(&text, line).filter(|_| is_worth_it) {
                    Some(again) => text = Cow::Owned(again),
                    None => return Err(describe(&error)),
                }
            }
        }
    }
}

enum Read {
    Documents(Vec<Node>),
    Failed(ScanError),
}

fn read(text: &str) -> Result<Read> {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => tree.take(event, span.start.line())?,
            Err(error) => return Ok(Read::Failed(error)),
        }
    }
    Ok(Read::Documents(tree.documents))
}

/// Both messages occur only within brackets.
fn is_too_far_left(error: &ScanError) -> bool {
    matches!(error.info(), "invalid indentation" | "invalid indentation in flow construct")
}

fn push_right(text: &str, line: usize) -> Option<String> {
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let (before, after) = text.split_at_checked(start)?;
    Some([before, &" ".repeat(DEPTH_MAX * 4), after].concat())
}

fn describe(error: &ScanError) -> anyhow::Error {
    let at = error.marker();
    anyhow!("line {} column {}: {}", at.line(), at.col() + 1, error.info())
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// Whether YAML parses this as null: an empty value, or an unquoted `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The entries of a map; empty for other values.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Scalar { .. } | Value::Seq(_) => &[],
        }
    }

    /// The items of a list; empty for other values.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Seq(items) => items,
            Value::Scalar { .. } | Value::Map(_) => &[],
        }
    }

    /// The entry under `key`; the last one of a duplicate key, as in most parsers.
    pub(crate) fn entry(&self, key: &str) -> Option<(&Node, &Node)> {
        let found = self.entries().iter().rev().find(|(it, _)| it.text() == Some(key));
        found.map(|(key, value)| (key, value))
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The scalars of "one string or a list of strings".
    pub(crate) fn one_or_many(&self) -> impl Iterator<Item = &Node> {
        let one = std::slice::from_ref(self);
        let nodes = if self.text().is_some() { one } else { self.items() };
        nodes.iter().filter(|node| node.text().is_some() && !node.is_null())
    }

    /// All texts in the tree, in order: enough to compare two trees.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let pairs = self.entries().iter().flat_map(|(key, value)| [key, value]);
        let below = pairs.chain(self.items()).flat_map(Node::texts);
        self.text().into_iter().chain(below).collect()
    }

    /// The number of nodes, and the depth.
    fn extent(&self) -> (usize, usize) {
        let pairs = self.entries().iter().flat_map(|(key, value)| [key, value]);
        let (nodes, depth) = pairs
            .chain(self.items())
            .map(Node::extent)
            .fold((0, 0), |(nodes, depth), (n, d)| (nodes + n, depth.max(d)));
        (nodes + 1, depth + 1)
    }
}

/// An open collection. `anchor` is the parser's number for it, 0 for none.
struct Open {
    line: usize,
    anchor: usize,
    children: Children,
}

enum Children {
    /// A sequence.
    Seq(Vec<Node>),
    Map {
        entries: Vec<(Node, Node)>,
        key: Option<Node>,
    },
}

#[derive(Default)]
struct Tree {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Tree {
    fn take(&mut self, event: Event, line: usize) -> Result<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.count(1, line)?;
                self.close(Node { line, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Open { line, anchor, children: Children::Seq(Vec::new()) }),
            Event::MappingStart(anchor, _) => {
                let children = Children::Map { entries: Vec::new(), key: None };
                self.open(Open { line, anchor, children })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn open(&mut self, open: Open) -> Result<()> {
        self.count(1, open.line)?;
        ensure!(self.open.len() < DEPTH_MAX, "line {}: nested deeper than {DEPTH_MAX} levels", open.line);
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(Open { line, anchor, children }) = self.open.pop() else { return Ok(()) };
        let value = match children {
            Children::Seq(items) => Value::Seq(items),
            Children::Map { entries, .. } => Value::Map(merged(entries)),
        };
        self.close(Node { line, value }, anchor)
    }

    /// Adds a finished node to its parent, and records it if it has an anchor.
    fn close(&mut self, node: Node, anchor: usize) -> Result<()> {
        if anchor > 0 {
            self.count(node.extent().0, node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.children) {
            None => self.documents.push(node),
            Some(Children::Seq(items)) => items.push(node),
            Some(Children::Map { entries, key }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            bail!("line {line}: this alias is inside its own anchor");
        };
        let (nodes, depth) = node.extent();
        let node = node.clone();
        self.count(nodes, line)?;
        ensure!(
            self.open.len() + depth <= DEPTH_MAX,
            "line {line}: with this alias expanded, nested deeper than {DEPTH_MAX} levels"
        );
        self.close(node, 0)
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<()> {
        self.nodes += nodes;
        ensure!(self.nodes <= NODES_MAX, "line {line}: more than {NODES_MAX} values, with aliases expanded");
        Ok(())
    }
}

/// Replaces `<<` by the entries of its value. Keys of the map itself take precedence.
fn merged(entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
    if !entries.iter().any(is_merge) {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_merge);
    let mut taken: HashSet<String> = own.iter().filter_map(|(key, _)| key.text()).map(str::to_owned).collect();
    for (_, source) in merges {
        let maps = match source.value {
            Value::Seq(items) => items,
            value => vec![Node { line: source.line, value }],
        };
        for map in maps {
            let Value::Map(entries) = map.value else { continue };
            let new = |key: &Node| key.text().is_none_or(|text| taken.insert(text.to_owned()));
            own.extend(filter_keys(entries, new));
        }
    }
    own
}

fn filter_keys(entries: Vec<(Node, Node)>, mut keep: impl FnMut(&Node) -> bool) -> impl Iterator<Item = (Node, Node)> {
    entries.into_iter().filter(move |(key, _)| keep(key))
}

/// A plain `<<` with a map or a list of maps. `<<: << parameters.x >>` is CircleCI's and stays.
fn is_merge((key, value): &(Node, Node)) -> bool {
    let merges = match &value.value {
        Value::Map(_) => true,
        Value::Seq(items) => items.iter().all(|item| matches!(item.value, Value::Map(_))),
        Value::Scalar { .. } => false,
    };
    merges && matches!(&key.value, Value::Scalar { text, plain: true } if text == "<<")
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&match parse(text) {
            Ok(documents) => documents.iter().map(show).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("error: {error}"),
        });
    }

    /// One line: every scalar as `text@line`, quoted ones in quotes.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, plain: true } => format!("{text}@{}", node.line),
            Value::Scalar { text, plain: false } => format!("{text:?}@{}", node.line),
            Value::Seq(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let pair = |(key, value): &(Node, Node)| format!("{}: {}", show(key), show(value));
                format!("{{{}}}", entries.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
        }
    }

    #[test]
    fn scalars_keep_their_line_and_their_quotes() {
        check(
            "a: 1\nb: '~'\nc: |\n  x\n  y\nd:\ne: [f]",
            expect![[r#"{a@1: 1@1, b@2: "~"@2, c@3: "x\ny\n"@4, d@6: @6, e@7: [f@7]}"#]],
        );
        check("a: ~\n# only a comment\n", expect!["{a@1: ~@1}"]);
    }

    #[test]
    fn aliases_and_merge_keys_are_written_out() {
        check(
            "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}",
            expect!["{x@1: {a@1: 1@1, b@1: 2@1}, y@2: {b@2: 3@2, a@1: 1@1}}"],
        );
        check(
            "x: &x {a: 1}\nz: &z {a: 2, c: 3}\ny: {<<: [*x, *z]}",
            expect!["{x@1: {a@1: 1@1}, z@2: {a@2: 2@2, c@2: 3@2}, y@3: {a@1: 1@1, c@2: 3@2}}"],
        );
        check("<<: << parameters.x >>", expect!["{<<@1: << parameters.x >>@1}"]);
        check("a: *no", expect!["error: line 1 column 4: while parsing node, found unknown anchor"]);
        check("a: &a [1, *a]", expect!["error: line 1: this alias is inside its own anchor"]);
    }

    #[test]
    fn key_written_twice_is_kept_twice() {
        check("a: 1\na: 2", expect!["{a@1: 1@1, a@2: 2@2}"]);
        let documents = parse("a: 1\na: 2").unwrap();
        assert_eq!(documents[0].get("a").and_then(Node::text), Some("2"));
    }

    #[test]
    fn streams_of_none_one_and_two_documents() {
        check("", expect![[""]]);
        check("# nothing", expect![[""]]);
        check("---\n", expect!["@2"]);
        check(
            "a\n---\nb\n",
            expect![[r#"
            a@1
            b@3"#]],
        );
    }

    #[test]
    fn errors_say_line_and_column() {
        check("a: [1", expect!["error: line 2 column 1: while parsing a flow sequence, expected ',' or ']'"]);
        check("a: b: c", expect!["error: line 1 column 5: mapping values are not allowed in this context"]);
        check("a:\n\t- b", expect!["error: line 2 column 2: tabs disallowed within this context (block indentation)"]);
        check("\u{0}", expect!["error: line 1 column 1: found unprintable character"]);
    }

    #[test]
    fn brackets_may_close_below_their_key() {
        check(
            "a:\n  b: [\n    c,\n  ]\n  d: {\ne: f\n  }\ng: h",
            expect!["{a@1: {b@2: [c@3], d@5: {e@6: f@6}}, g@8: h@8}"],
        );
        check("a:\n  b: [\n]\n  c: ]", expect!["error: line 4 column 6: misplaced bracket"]);
        check(
            "a:\n  b: [\n",
            expect!["error: line 3 column 1: while parsing a node, did not find expected node content"],
        );
    }

    #[test]
    fn depth_and_aliases_are_bounded() {
        check(&"[".repeat(100_000), expect!["error: line 1 column 256: recursion limit exceeded"]);
        check(&"- ".repeat(5_000), expect!["error: line 1: nested deeper than 64 levels"]);
        check(&"{a: ".repeat(5_000), expect!["error: line 1 column 1021: recursion limit exceeded"]);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let ten = vec![format!("*a{}", n - 1); 10].join(", ");
            writeln!(bomb, "a{n}: &a{n} [{ten}]").unwrap();
        }
        check(&bomb, expect!["error: line 5: more than 200000 values, with aliases expanded"]);
        let mut tower = String::from("a0: &a0 [x]\n");
        for n in 1..80 {
            writeln!(tower, "a{n}: &a{n} [*a{}]", n - 1).unwrap();
        }
        check(&tower, expect!["error: line 63: with this alias expanded, nested deeper than 64 levels"]);
    }
}
