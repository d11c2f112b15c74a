//! The command blocks of a guide, and the marks before them.
//!
//! A command block is indented, or fenced as `sh`, and its first word is a program: other text has a fence with another
//! name. Comments on the lines before a block say what is not visible in it:
//!
//! ```text
//! <!-- not run: REASON -->            the block is not executed
//! <!-- not run, line 2: REASON -->    that line of it is not
//! <!-- ready: COMMAND -->             a command that runs before the block
//! <!-- answers: y, n -->              it runs on a terminal, and these are typed at its questions
//! <!-- shows -->                      the block is what the last command block printed
//! ```

/// The first words of command blocks.
const PROGRAMS: &[&str] = &["cargo", "cd", "curl", "export", "git", "man", "ssh", "ssh-keygen", "ssh-keyscan"];

/// A comment before a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    NotRun(String),
    LineNotRun(usize, String),
    Ready(String),
    Answers(Vec<String>),
    Shows,
}

/// A block of a guide.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The number of its first line, from 1.
    pub line: usize,
    /// The word after the fence; none of an indented block.
    pub language: Option<String>,
    pub marks: Vec<Mark>,
    pub lines: Vec<String>,
}

impl Block {
    /// Whether its fence, if any, names a shell.
    fn is_shell(&self) -> bool {
        self.language.as_deref().is_none_or(|name| ["", "sh"].contains(&name))
    }

    pub fn is_commands(&self) -> bool {
        if !self.is_shell() {
            return false;
        }
        let first = self.lines.first().and_then(|line| line.split_whitespace().next());
        first.is_some_and(|word| PROGRAMS.contains(&word))
    }

    /// Fails for a block that looks like commands and is none, and for a mark of a line that is not there.
    fn check(&self) -> Result<(), String> {
        let is_other = self.marks.iter().any(|mark| matches!(mark, Mark::Shows | Mark::NotRun(_)));
        if self.is_shell() && !is_other && !self.is_commands() {
            return Err(format!("line {}: its first word is no program of PROGRAMS: fence it as `text`", self.line));
        }
        match self.marks.iter().filter_map(Mark::left_out).find(|line| !(1..=self.lines.len()).contains(line)) {
            Some(line) => Err(format!("line {}: the block has no line {line}", self.line)),
            None => Ok(()),
        }
    }

    /// The reason for which nothing of it is run.
    pub fn not_run(&self) -> Option<&str> {
        self.marks.iter().find_map(|mark| match mark {
            Mark::NotRun(reason) => Some(reason.as_str()),
            _ => None,
        })
    }

    /// What bash runs.
    pub fn script(&self) -> String {
        let ready = self.marks.iter().filter_map(|mark| match mark {
            Mark::Ready(command) => Some(command.clone()),
            _ => None,
        });
        let left_out: Vec<usize> = self.marks.iter().filter_map(Mark::left_out).collect();
        let commands = self.lines.iter().enumerate().filter(|(n, _)| !left_out.contains(&(n + 1)));
        ready.chain(commands.map(|(_, line)| line.clone())).map(|line| format!("{line}\n")).collect()
    }

    /// What is typed at its questions; `None` without a terminal.
    pub fn answers(&self) -> Option<&[String]> {
        self.marks.iter().find_map(|mark| match mark {
            Mark::Answers(answers) => Some(answers.as_slice()),
            _ => None,
        })
    }
}

impl Mark {
    fn left_out(&self) -> Option<usize> {
        match self {
            Self::LineNotRun(line, _) => Some(*line),
            _ => None,
        }
    }

    /// The mark of a comment; an error for one that looks like a mark and is none.
    fn of(comment: &str) -> Result<Option<Self>, String> {
        let (word, rest) = comment.split_once(':').unwrap_or((comment, ""));
        let rest = rest.trim().to_owned();
        let mark = match word.trim() {
            "shows" => Self::Shows,
            "ready" => Self::Ready(rest.clone()),
            "answers" => Self::Answers(rest.split(',').map(|answer| answer.trim().to_owned()).collect()),
            "not run" => Self::NotRun(rest.clone()),
            other => match other.strip_prefix("not run, line ").map(str::parse) {
                Some(Ok(line)) => Self::LineNotRun(line, rest.clone()),
                Some(Err(_)) => return Err(format!("`{comment}` names no line")),
                None => return Ok(None),
            },
        };
        if rest.is_empty() && !matches!(mark, Self::Shows | Self::Answers(_)) {
            return Err(format!("`{comment}` says nothing after the colon"));
        }
        Ok(Some(mark))
    }
}

/// The blocks of a guide, in order.
pub fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let (mut all, mut marks) = (Vec::<Block>::new(), Vec::new());
    let mut fence: Option<String> = None;
    let mut open: Option<Block> = None;
    for (n, line) in text.lines().enumerate() {
        let language = line.strip_prefix("```");
        let is_fence = language.is_some();
        let inside = if fence.is_some() { !is_fence } else { line.starts_with("    ") };
        if inside {
            let block = open.get_or_insert_with(|| Block {
                line: n + 1,
                language: fence.clone(),
                marks: std::mem::take(&mut marks),
                lines: vec![],
            });
            block.lines.push(line.strip_prefix("    ").filter(|_| fence.is_none()).unwrap_or(line).to_owned());
            continue;
        }
        fence = if fence.is_some() && is_fence { None } else { language.map(str::to_owned).or(fence) };
        all.extend(open.take());
        if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            marks.extend(Mark::of(comment).map_err(|error| format!("line {}: {error}", n + 1))?);
        } else if !line.is_empty() && !is_fence && !marks.is_empty() {
            return Err(format!("line {}: a mark without a block", n + 1));
        }
    }
    all.extend(open);
    all.iter().try_for_each(Block::check)?;
    Ok(all)
}

#[test]
fn blocks_are_found_with_their_marks() {
    let text = "text\n\n<!-- answers: y, n -->\n<!-- not run, line 2: slow -->\n\n    cargo xtask a  # b\n    cargo xtask c\n\n\
                <!-- shows -->\n```text\na 1\n    b\n```\n<!-- a comment -->\n<!-- not run: no host -->\n    cd x\n";
    let found = blocks(text).unwrap();
    assert_eq!(found.iter().map(|it| it.line).collect::<Vec<_>>(), [6, 11, 16]);
    assert_eq!(found[0].script(), "cargo xtask a  # b\n");
    assert_eq!(found[0].answers().unwrap(), ["y", "n"]);
    assert_eq!((found[1].marks.as_slice(), found[1].lines.len()), (&[Mark::Shows][..], 2));
    assert_eq!(found[2].not_run(), Some("no host"));
    assert!(blocks("<!-- not run: -->\n    cd x\n").is_err());
    assert!(blocks("<!-- not run: it is slow -->\ntext\n").is_err());
    assert!(blocks("<!-- not run, line 2: it is slow -->\n    cd x\n").is_err());
    assert!(blocks("    dc x\n").is_err() && blocks("```sh\ndc x\n```\n").is_err());
    assert!(blocks("```text\ndc x\n```\n").is_ok() && blocks("<!-- shows -->\n    dc x\n").is_ok());
}
