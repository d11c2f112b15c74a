//! Just enough of Rust's grammar to count lines, find functions and see who names whom.
//!
//! A parser would be a dependency of forty thousand lines. What is needed here is to know what is a comment, what is a
//! string and which bracket closes which; the rest is words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A file of Rust.
pub struct Source {
    /// Path from the root of the repository.
    pub path: String,
    /// As it stands in the file.
    pub text: String,
    /// The same without comments and without what is in quotes.
    pub code: String,
    /// The code without its `#[cfg(test)]` items; empty in files that are tests.
    pub shipped: String,
}

/// A path that some code names.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    pub line: usize,
    /// Written out: after `use std::io`, `io::stdout()` names `std::io::stdout`. A macro ends in `!`.
    pub path: String,
    /// Whether a `use` above let the code write less than that.
    pub short: bool,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
}

/// Every `.rs` file below a directory of the repository, in the order of their paths.
pub fn sources(root: &Path, dir: &str) -> Vec<Source> {
    let (mut found, mut open) = (Vec::new(), vec![root.join(dir)]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                found.push(Source::new(path.strip_prefix(root).unwrap().to_str().unwrap(), text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Source {
    pub fn new(path: &str, text: String) -> Self {
        let code = mask(&text);
        let shipped = if path.ends_with("tests.rs") { String::new() } else { without_tests(&code) };
        Self { path: path.into(), text, code, shipped }
    }

    /// Lines of code, without blank ones, comments and an inline tail of tests.
    pub fn lines_of_code(&self) -> usize {
        without_tests(&self.code).lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Every path that the shipped code names, in `use` items first.
    pub fn names(&self) -> Vec<Name> {
        let code = &self.shipped;
        let (mut names, mut used, mut from) = (Vec::new(), BTreeMap::new(), 0);
        let mut inline = Vec::new();
        while let Some((start, word)) = next_word(code, from) {
            from = start + word.len();
            let (line, after) = (line_of(code, start), code[from..].trim_start());
            // `impl Trait + use<'a>` is no import.
            if word == "use" && !after.starts_with('<') {
                let end = from + code[from..].find(';').unwrap_or(0);
                expand("", &code[from..end], &mut |name, path| {
                    used.insert(name.to_owned(), path.clone());
                    names.push(Name { line, path, short: false });
                });
                from = end;
            } else {
                while code[from..].starts_with("::") && code[from + 2..].starts_with(is_word) {
                    from += 2 + next_word(code, from + 2).map_or(0, |(_, word)| word.len());
                }
                let called = code[from..].starts_with('!') && !code[from..].starts_with("!=");
                if called || from > start + word.len() {
                    inline.push((line, word, format!("{}{}", &code[start..from], if called { "!" } else { "" })));
                }
            }
        }
        names.extend(inline.into_iter().map(|(line, first, path)| match used.get(first) {
            Some(full) => Name { line, path: format!("{full}{}", &path[first.len()..]), short: true },
            None => Name { line, path, short: false },
        }));
        names
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first identifier, keyword or number at or after `from`.
fn next_word(code: &str, from: usize) -> Option<(usize, &str)> {
    let start = from + code[from..].find(is_word)?;
    let length = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
    Some((start, &code[start..start + length]))
}

/// The number of the line that a byte is on.
pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Whether the word that starts at `start` stands alone, and is neither a method nor the name of a new function.
pub fn is_call(code: &str, start: usize) -> bool {
    let before = &code[..start];
    !before.ends_with(|c| is_word(c) || c == '.') && !before.trim_end().ends_with("fn")
}

/// Each path of a `use` tree, and the name that it has from there on.
fn expand(prefix: &str, tree: &str, found: &mut impl FnMut(&str, String)) {
    let (mut depth, mut start) = (0, 0);
    let mut ends: Vec<_> = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => ends.push(at),
            _ => {}
        }
    }
    ends.push(tree.len());
    for end in ends {
        let branch = tree[start..end].trim();
        start = end + 1;
        if let Some((head, inner)) = branch.split_once('{') {
            expand(&format!("{prefix}{head}"), inner.strip_suffix('}').unwrap_or(inner), found);
        } else if !branch.is_empty() {
            let (path, renamed) = branch.split_once(" as ").map_or((branch, None), |(path, name)| (path, Some(name)));
            let full = format!("{prefix}{path}");
            let full = full.strip_suffix("::self").unwrap_or(&full).trim_start_matches("::").to_owned();
            let name = renamed.unwrap_or_else(|| full.rsplit("::").next().unwrap_or_default()).to_owned();
            found(&name, full);
        }
    }
}

/// Blanks comments, and puts a quote in place of every visible byte between quotes: the code keeps its length and its
/// lines, and what is left of a bracket or a word is one.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let hashes = rest[word..].bytes().take_while(|byte| *byte == b'#').count();
        let (length, filler) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), b' ')
        } else if rest.starts_with("/*") {
            (block_comment(rest), b' ')
        } else if matches!(&rest[..word], "r" | "br" | "cr") && rest[word + hashes..].starts_with('"') {
            let (open, close) = (word + hashes + 1, format!("\"{}", "#".repeat(hashes)));
            (rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len()), b'"')
        } else if rest.starts_with('"') {
            (quoted(rest, b'"'), b'"')
        } else if is_char_literal(rest) {
            (quoted(rest, b'\''), b'"')
        } else {
            let length = word.max(rest.chars().next().map_or(1, char::len_utf8));
            out.extend_from_slice(&bytes[at..at + length]);
            at += length;
            continue;
        };
        let hidden = |byte: &u8| if byte.is_ascii_whitespace() { *byte } else { filler };
        out.extend(bytes[at..at + length].iter().map(hidden));
        at += length;
    }
    String::from_utf8(out).expect("whole characters are kept or masked")
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..rest.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a literal up to and with its closing quote.
fn quoted(rest: &str, quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.as_bytes().get(at) {
        match byte {
            b'\\' => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `'a'` and `'\n'`, but not the lifetime `'a`.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('\'') && (chars.next() == Some('\\') || chars.next() == Some('\''))
}

/// The byte of the bracket that closes the one at `open`.
pub fn close(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 1 => return at,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len() - 1
}

/// Where the item at `from` opens its body, or the semicolon of one without a body.
fn body(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += code[at..].find(['(', '[', '{', ';'])?;
        match code.as_bytes()[at] {
            b'{' | b';' => return Some(at),
            _ => at = close(code, at) + 1,
        }
    }
}

/// Blanks every item under `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let (mut out, mut from) = (String::with_capacity(code.len()), 0);
    while let Some(start) = code[from..].find(TEST).map(|at| from + at) {
        let mut item = start;
        while code[item..].trim_start().starts_with("#[") {
            let attribute = item + code[item..].find('[').unwrap_or(0);
            item = close(code, attribute) + 1;
        }
        let end = match body(code, item) {
            Some(at) if code.as_bytes()[at] == b'{' => close(code, at),
            Some(at) => at,
            None => code.len() - 1,
        };
        out.push_str(&code[from..start]);
        out.extend(code[start..=end].chars().map(|c| if c == '\n' { c } else { ' ' }));
        from = end + 1;
    }
    out + &code[from..]
}

/// Every function with a body.
pub fn functions(code: &str) -> Vec<Function> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some((start, word)) = next_word(code, from) {
        from = start + word.len();
        // `fn(u8)` is a type.
        if word != "fn" || code[from..].trim_start().starts_with('(') {
            continue;
        }
        let Some((_, name)) = next_word(code, from) else { break };
        let Some(open) = body(code, from).filter(|at| code.as_bytes()[*at] == b'{') else { continue };
        let lines = code[start..close(code, open)].matches('\n').count() + 1;
        found.push(Function { name: name.into(), line: line_of(code, start), lines });
    }
    found
}

/// The methods that are called, one after the other, on the value of the call whose bracket is at `open`.
pub fn chain(code: &str, open: usize) -> Vec<&str> {
    let (mut methods, mut at) = (Vec::new(), close(code, open) + 1);
    while let Some(after) = code[at..].trim_start().trim_start_matches('?').trim_start().strip_prefix('.') {
        let Some((start, name)) = next_word(code, code.len() - after.len()) else { break };
        methods.push(name);
        at = start + name.len();
        if code[at..].starts_with("::<") {
            at += code[at..].find(">(").map_or(0, |bracket| bracket + 1);
        }
        if code[at..].starts_with('(') {
            at = close(code, at) + 1;
        }
    }
    methods
}

#[test]
fn comments_and_literals_are_masked() {
    for (code, masked) in [
        ("a /* { /* } */ { */ b // {\nc", "a                   b     \nc"),
        (r#"f("{\"}", b"}", 'x')"#, "f(~~~~~~, b~~~, ~~~)"),
        (r##"r#"a"}"# + br"\" + r#fn"##, "~~~~~~~~ + ~~~~~ + r#fn"),
        (r"['{', '\'', '\u{7d}', b'}', 'é'] <'a, 'b>", "[~~~, ~~~~, ~~~~~~~~, b~~~, ~~~~] <'a, 'b>"),
        ("for\"{\"; x.iter\n\"\n}\n\"", "for~~~; x.iter\n~\n~\n~"),
        ("'a: loop { break 'a }", "'a: loop { break 'a }"),
    ] {
        assert_eq!(mask(code).replace('"', "~"), masked, "{code}");
    }
}

#[test]
fn functions_have_a_length() {
    let code =
        mask("fn a(f: fn(u8) -> [u8; 4]) -> u8 {\n  \"}\"; '}'\n}\ntrait T {\n fn b();\n fn c() {} // fn d() {\n}\n");
    let found: Vec<_> = functions(&code).into_iter().map(|it| (it.name, it.line, it.lines)).collect();
    assert_eq!(found, [("a".into(), 1, 3), ("c".into(), 6, 1)]);
}

#[test]
fn tests_are_no_code() {
    let code = "a\n#[cfg(test)]\n#[allow(b)]\nmod tests {\n fn c() {}\n}\nd\n#[cfg(test)]\nmod tests;\ne";
    let kept: Vec<_> = without_tests(code).lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!((kept.join("."), without_tests(code).len()), ("a......d...e".into(), code.len()));
    assert_eq!(Source::new("a.rs", format!("//! B.\n\n{code} // f\n\"\n g\"\n")).lines_of_code(), 5);
}

#[test]
fn names_are_written_out() {
    let code =
        "use a::{self, b::{C, d as e}};\nfn f() -> impl T + use<'a> { a::x(e::y, C, z!(), C::<u8>::new(), self::f) }";
    let names: Vec<_> = Source::new("a.rs", code.into()).names().into_iter().map(|it| it.path).collect();
    assert_eq!(names, ["a", "a::b::C", "a::b::d", "a::x", "a::b::d::y", "z!", "self::f"]);
}

#[test]
fn chain_lists_the_methods_called_on_a_call() {
    let code = "usage(f(x))\n  .hint(y.z())\n  .err::<()>()?\n  .w; v.u()";
    assert_eq!(chain(code, 5), ["hint", "err", "w"]);
    assert_eq!(chain("usage(x)", 5), [""; 0]);
}
