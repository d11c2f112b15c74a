//! Frames: markers that separate the output of a script from everything else on its channel.
//!
//! A host runs a script in a shell whose output also carries the output of the login's profile, of background
//! processes, and of an app that may print a similar format. So each script has a random marker, passed on the command
//! line or with the request, and prints it before its first byte and after its last:
//!
//! ```text
//! output of a profile
//! MARK begin\n
//! the output of the script\n
//! MARK end CODE
//! later output
//! ```
//!
//! Both streams have both lines; the code is on stdout. The script travels on stdin as one line between two markers, so
//! a line that was truncated or consumed by a profile is never run, and no other line is run in its place.
//!
//! A connection has a shell that stays open and runs one script after the other ([`open_command`]), because each command
//! of its own costs three round trips.

use crate::event::Stream;
use crate::shell::quote;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Exit code of a shell on a host that did not receive its script.
pub const EXIT_NO_SCRIPT: i32 = 254;
/// The error message for [`EXIT_NO_SCRIPT`].
pub const NO_SCRIPT: &str = "the first line on stdin is not the script";
/// The variables of a login that scripts keep. Others come from the profile: some change what a script does (`CDPATH`,
/// `TAR_OPTIONS`, `POSIXLY_CORRECT`, ...), and some shells turn them into functions. Local scripts keep the same ones,
/// except those of a proxy.
pub const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];
/// Proxy variables, for hosts that download a bundle.
const PROXY: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
];
/// Variables that change what a script does. A container's environment is its configuration, so only these are removed
/// there.
const HARMFUL: &[&str] = &[
    "BASH_ENV",
    "BLOCK_SIZE",
    "CDPATH",
    "ENV",
    "GREP_OPTIONS",
    "GZIP",
    "LC_ALL",
    "POSIXLY_CORRECT",
    "QUOTING_STYLE",
    "SHELLOPTS",
    "TAR_OPTIONS",
    "TIME_STYLE",
    "ZSTD_CLEVEL",
];

/// The prefix of all markers.
const MARKER: &str = "gangplank-";

/// The marker of one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker(String);

impl Marker {
    /// An unpredictable marker: the standard library seeds its hashers with random bytes of the system.
    pub fn random() -> Self {
        let part = || RandomState::new().build_hasher().finish();
        Self(format!("{MARKER}{:016x}{:016x}", part(), part()))
    }

    /// The line before the first byte of output.
    pub fn begin(&self) -> String {
        format!("{} begin\n", self.0)
    }

    /// The start of the line after the last byte of output.
    fn end(&self) -> String {
        format!("\n{} end", self.0)
    }

    /// The line between two parts of a sequence.
    pub fn part(&self) -> String {
        format!("{} part", self.0)
    }
}

/// A text as one line, to be decoded by `printf %b`: POSIX specifies `\\` and `
/// ` for it.
pub fn one_line(text: &str) -> String {
    format!("{}\n", text.replace('\\', "\\\\").replace('\n', "\\n"))
}

/// A script as the line that the shell of [`command`] reads.
pub fn script_line(marker: &Marker, script: &str) -> String {
    format!("{0} {1} {0}\n", marker.0, one_line(script).trim_end_matches('\n'))
}

/// The command that runs a script on a host, as one string for the login shell, which may be bash, csh or fish. `name`
/// is the process name on the host. With a limit, the host kills the script itself, because it does not notice a lost
/// connection.
///
/// The first shell only sets the environment. It is called by its path, which a function of the login shell cannot
/// replace. Inside it, `exec` and `unset` are special builtins, found before any function, and `exec` finds `env` on
/// PATH, so no exported function can take their place. `read` reads no byte beyond its line.
pub fn command(marker: &Marker, name: &str, limit: Option<Duration>, environment: Environment) -> String {
    let run = "/bin/sh -c \"$1\" \"$0\" \"$2\"";
    let first = match environment {
        Environment::OfLogin => format!("exec {} {run}", clean_environment()),
        Environment::OfContainer => format!("unset {}; exec {run}", HARMFUL.join(" ")),
    };
    format!("/bin/sh -c {} {} {} {}", quote(&first), quote(name), quote(&runner(limit)), marker.0)
}

/// The command of a shell that stays open, as [`command`] is. It expects [`greeting`], prints the begin of `marker`, and
/// then runs the scripts that [`request`] sends, each in a shell of its own with its name in the process list.
pub fn open_command(marker: &Marker) -> String {
    let first = format!("exec {} /bin/sh -c \"$1\" \"$0\" \"$2\"", clean_environment());
    format!("/bin/sh -c {} gangplank {} {}", quote(&first), quote(&request_loop()), marker.0)
}

/// Empty lines of [`greeting`], so that a profile that reads does not wait forever.
const EMPTY_LINES: usize = 4;

/// The first lines for the shell of [`open_command`]: without them all, a profile reads from stdin, and would read scripts
/// too.
pub fn greeting(marker: &Marker) -> String {
    format!("{}{}\n", "\n".repeat(EMPTY_LINES), marker.0)
}

/// The shell of [`open_command`]; without line breaks or single quotes, like [`runner`].
///
/// It ends at any line that is not a request: then a process of the profile reads from stdin too. Short prefixes are cut
/// first, because dash compares each prefix anew. `echo` to a connection that is gone ends the shell by SIGPIPE, so a
/// request that arrives late is not run.
fn request_loop() -> String {
    let refuse = format!("{{ echo \"{NO_SCRIPT}\" >&2; exit {EXIT_NO_SCRIPT}; }}");
    format!(
        "mark=$1; tab=$(printf \"\\t\"); empty_lines=0; \
         while IFS= read -r line && [ \"$line\" != \"$mark\" ]; do empty_lines=$((empty_lines + 1)); done; \
         [ \"$empty_lines\" = {EMPTY_LINES} ] || {refuse}; \
         echo \"$mark begin\"; while IFS= read -r line; do \
         case $line in \"$mark \"*\" $mark\") ;; *) {refuse};; esac; line=${{line#\"$mark \"}}; line=${{line%\" $mark\"}}; \
         script_mark=${{line%%\"$tab\"*}}; line=${{line#*\"$tab\"}}; name=${{line%%\"$tab\"*}}; \
         script=$(printf %b \"${{line#*\"$tab\"}}\"); IFS= read -r input || exit; \
         echo \"$script_mark begin\"; echo \"$script_mark begin\" >&2; \
         printf %b \"$input\" | /bin/sh -c \"$script\" \"$name\"; code=$?; \
         printf \"\\n%s end\\n\" \"$script_mark\" >&2; printf \"\\n%s end %s\\n\" \"$script_mark\" \"$code\"; done"
    )
}

/// `env` with the variables of a login that scripts keep.
fn clean_environment() -> String {
    let kept: String = KEPT.iter().chain(PROXY).map(|name| format!(" ${{{name}+\"{name}=${name}\"}}")).collect();
    format!("env -i{kept}")
}

/// The longest script that [`request`] takes, in bytes: the shell passes it on as an argument, and Linux allows 128 KiB.
pub const REQUEST_MAX: usize = 64 << 10;

/// The two lines that make the shell of [`open_command`] run a script: framed by `own`, called `name`, with `input` on
/// stdin.
pub fn request(open: &Marker, own: &Marker, name: &str, script: &str, input: &str) -> String {
    let script = one_line(script).replace('\t', "\\t");
    format!("{0} {1}\t{name}\t{2} {0}\n{3}", open.0, own.0, script.trim_end_matches('\n'), one_line(input))
}

/// The environment that a command starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// The environment of a login's profile: a script keeps a few of its variables.
    OfLogin,
    /// The environment of a container, set by its image: a script keeps all but the harmful variables.
    OfContainer,
}

/// The second shell: reads the script, runs it and frames its output. Contains no line breaks or single quotes, because
/// a csh may pass it on.
fn runner(limit: Option<Duration>) -> String {
    let run = match limit {
        None => "(eval \"$script\")".to_owned(),
        Some(limit) => format!(
            "if command -v timeout > /dev/null 2>&1; then timeout -k 2 {} /bin/sh -c \"$script\" \"$0\"; else (eval \"$script\"); fi",
            limit.as_secs() + 1
        ),
    };
    format!(
        "mark=$1; IFS= read -r line || line=; case $line in \"$mark \"*\" $mark\") ;; *) echo \"{NO_SCRIPT}\" >&2; exit {EXIT_NO_SCRIPT};; esac; \
         line=${{line#\"$mark \"}}; script=$(printf %b \"${{line%\" $mark\"}}\"); \
         echo \"$mark begin\"; echo \"$mark begin\" >&2; {run}; code=$?; \
         printf \"\\n%s end\\n\" \"$mark\" >&2; printf \"\\n%s end %s\\n\" \"$mark\" \"$code\"; exit 0"
    )
}

/// The result of a finished script: exit code, stdout and stderr within the frame.
pub type Framed<'a> = (i32, &'a str, &'a str);

/// Parses the output of a script; `None` if its frame is incomplete.
pub fn parse<'a>(marker: &Marker, stdout: &'a str, stderr: &'a str) -> Option<Framed<'a>> {
    let (stdout, after) = framed(marker, stdout)?;
    // Requires the line break, because the code may be truncated.
    let code = after?.split_once('\n')?.0.trim().parse().ok()?;
    Some((code, stdout, so_far(marker, stderr)))
}

/// The output outside the frame.
pub fn outside(marker: &Marker, output: &str) -> String {
    let (before, inside) = output.split_once(&marker.begin()).unwrap_or((output, ""));
    let after =
        inside.split_once(&marker.end()).and_then(|(_, rest)| rest.split_once('\n')).map_or("", |(_, after)| after);
    [before, after].concat()
}

/// The output so far of a script that was killed.
pub fn so_far<'a>(marker: &Marker, output: &'a str) -> &'a str {
    framed(marker, output).map_or(output, |(text, _)| text)
}

/// The output without any markers, for messages.
pub fn without_markers(output: &str) -> String {
    let is_marker = |word: &str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let plain = |line: &str| match line.split_once(MARKER) {
        Some((before, after)) if after.split(' ').next().is_some_and(is_marker) => before.to_owned(),
        _ => line.to_owned(),
    };
    output.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Whether the output contains the start of the frame.
pub fn has_begun(marker: &Marker, output: &str) -> bool {
    output.contains(&marker.begin())
}

/// Whether the output contains the end of the frame. The first `seen` bytes were searched before.
pub fn has_ended(marker: &Marker, output: &[u8], seen: &mut usize) -> bool {
    end_at(marker, output, seen).is_some()
}

/// Like [`has_ended`], up to the end of the line, which has the exit code.
pub fn is_whole(marker: &Marker, output: &[u8], seen: &mut usize) -> bool {
    let before = *seen;
    let is_whole = end_at(marker, output, seen).is_some_and(|end| output[end..].contains(&b'\n'));
    if !is_whole {
        *seen = before;
    }
    is_whole
}

/// The position after the start of the end line.
fn end_at(marker: &Marker, output: &[u8], seen: &mut usize) -> Option<usize> {
    let end = format!("{} ", marker.end());
    // Long output is shortened in the middle, so it may have shrunk.
    let from = if *seen > output.len() { 0 } else { seen.saturating_sub(end.len()) };
    *seen = output.len();
    let at = output[from..].windows(end.len()).position(|piece| piece == end.as_bytes())?;
    Some(from + at + end.len())
}

/// Whether stderr contains the end of the frame.
pub fn stderr_has_ended(marker: &Marker, output: &[u8]) -> bool {
    let end = format!("{}\n", marker.end());
    output.windows(end.len()).any(|piece| piece == end.as_bytes())
}

/// The output in a frame, and the rest of its end line if there is one.
fn framed<'a>(marker: &Marker, output: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    let (_, inside) = output.split_once(&marker.begin())?;
    Some(match inside.split_once(&marker.end()) {
        Some((inside, after)) => (inside, Some(after)),
        None => (inside, None),
    })
}

/// Parses the output of a script line by line.
pub struct Parser {
    marker: Marker,
    /// Whether the frame has started, per stream.
    begun: [bool; 2],
    /// Whether the frame has ended on stderr.
    complained: bool,
    /// The stderr output before the frame.
    pub before: String,
    /// A pending empty line, per stream: part of the output, or of the frame's end.
    empty: [bool; 2],
    /// The exit code, and when the script ended.
    pub ended: Option<(i32, Instant)>,
}

impl Parser {
    /// A parser without input.
    pub fn new(marker: Marker) -> Self {
        Self { marker, begun: [false; 2], complained: false, before: String::new(), empty: [false; 2], ended: None }
    }

    /// Whether the script has started.
    pub fn has_begun(&self) -> bool {
        self.begun[0]
    }

    /// Reads a line; returns the completed lines of the script.
    pub fn line(&mut self, stream: Stream, line: String) -> Vec<String> {
        let at = usize::from(stream == Stream::Stderr);
        if !self.begun[at] {
            // A profile may have printed text without a line break before it.
            self.begun[at] = line.ends_with(self.marker.begin().trim_end());
            if stream == Stream::Stderr && !self.begun[at] {
                self.before += &(line + "\n");
            }
            return vec![];
        }
        let is_over = if stream == Stream::Stderr { self.complained } else { self.ended.is_some() };
        if is_over {
            return vec![];
        }
        if let Some(code) = line.strip_prefix(self.marker.end().trim_start()) {
            match stream {
                Stream::Stderr => self.complained = true,
                Stream::Stdout => self.ended = code.trim().parse().ok().map(|code| (code, Instant::now())),
            }
            return vec![];
        }
        let before = std::mem::replace(&mut self.empty[at], line.is_empty());
        before.then(String::new).into_iter().chain((!line.is_empty()).then_some(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker("m".into())
    }

    #[test]
    fn output_outside_of_its_frame_is_ignored() {
        for (stdout, output) in [
            ("hi\nm begin\nsaid\n\nm end 3\n", Some(("said\n", 3))),
            ("no line breakm begin\nsaid\nm end 0\nbye\n", Some(("said", 0))),
            ("m begin\n\nm end 255\n\nm end 0\n", Some(("", 255))),
            ("m begin\nother end 0\n\nx begin\n\nm end 1\n", Some(("other end 0\n\nx begin\n", 1))),
            ("", None),
            ("hi\n", None),
            ("m begin\n", None),
            ("m begin\nsaid\n", None),
            ("m begin\nx\nm end \n", None),
            ("m begin\nx\nm end", None),
            ("m begin\nx\nm end 1", None),
        ] {
            let parsed = parse(&marker(), stdout, "").map(|(code, stdout, _)| (stdout, code));
            assert_eq!(parsed, output, "{stdout:?}");
        }
        assert_eq!(outside(&marker(), "hi\nm begin\nx\n\nm end 0\nbye\n"), "hi\nbye\n");
        assert_eq!(outside(&marker(), "m begin\nx\n\nm end 0\n"), "");
        let parsed = parse(&marker(), "m begin\n\nm end 0\n", "hi\nm begin\nerror\n\nm end\nbye\n");
        assert_eq!(parsed, Some((0, "", "error\n")));
    }

    #[test]
    fn has_ended_finds_the_end_wherever_output_is_cut() {
        let output = b"m begin\nsome output\nm end 0\nmore";
        for cut in 0..output.len() {
            let mut seen = 0;
            let first = has_ended(&marker(), &output[..cut], &mut seen);
            assert!(first || has_ended(&marker(), output, &mut seen), "{cut}");
        }
        assert!(!has_ended(&marker(), b"m begin\nsome output\nother end 0\n", &mut 0));
        for cut in 0..=output.len() {
            let mut seen = 0;
            let first = is_whole(&marker(), &output[..cut], &mut seen);
            assert_eq!(first, cut >= output.len() - "more".len(), "{cut}");
            assert!(first || is_whole(&marker(), output, &mut seen), "{cut}");
        }
        assert!(is_whole(&marker(), output, &mut 1000), "it was longer before");
    }

    #[test]
    fn lines_are_those_of_the_script() {
        let read = |lines: &str| {
            let mut parser = Parser::new(marker());
            let said: Vec<_> = lines.lines().flat_map(|line| parser.line(Stream::Stdout, line.to_owned())).collect();
            (said.join("|"), parser.ended.map(|(code, _)| code))
        };
        for (lines, said, code) in [
            ("welcome\nm begin\na\n\n\nb\n\nm end 3\nleft behind\n", "a|||b", Some(3)),
            ("a promptm begin\nno newline\nm end 0\n", "no newline", Some(0)),
            ("m begin\n\n\nm end 0\n", "", Some(0)),
            ("m begin\nso far\n", "so far", None),
            ("it says nothing of ours\n", "", None),
        ] {
            assert_eq!(read(lines), (said.to_owned(), code), "{lines:?}");
        }
        let mut parser = Parser::new(marker());
        let mut line = |text: &str| parser.line(Stream::Stderr, text.into());
        assert_eq!(line("a profile"), Vec::<String>::new());
        assert_eq!(line("m begin"), Vec::<String>::new());
        assert_eq!(line("its own"), ["its own"]);
        assert_eq!(line(""), Vec::<String>::new());
        assert_eq!(line("m end"), Vec::<String>::new());
        assert_eq!(line("a trap"), Vec::<String>::new());
        assert!(!parser.has_begun() && parser.before == "a profile\n");
    }

    #[test]
    fn script_line_is_one_line_between_markers() {
        let script = "printf '%s\\n' \"a\\\\b\"\nexit 3\n";
        assert_eq!(one_line(script), "printf '%s\\\\n' \"a\\\\\\\\b\"\\nexit 3\\n\n");
        assert_eq!(script_line(&marker(), "a\nb"), "m a\\nb m\n");
    }

    #[test]
    fn open_shell_runs_each_request_and_ends_at_other_lines() {
        let open = Marker("open".into());
        let lines = [
            greeting(&open),
            request(
                &open,
                &Marker("one".into()),
                "a name",
                "printf '%s|' \"$0\" a\\\\tb\tc\ncat; exit 3",
                "in\\put\n\t'x'",
            ),
            request(&open, &Marker("two".into()), "b", "cat; echo bad >&2", ""),
            // The input is missing.
            request(&open, &Marker("three".into()), "c", "echo never", "").lines().next().unwrap().to_owned() + "\n",
        ];
        for login in ["sh", "bash", "dash", "busybox sh"] {
            let mut words = login.split(' ');
            let mut shell = std::process::Command::new(words.next().unwrap());
            shell.args(words).args(["-c", &open_command(&open)]);
            shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let Ok(mut child) = shell.stderr(std::process::Stdio::piped()).spawn() else { continue };
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.concat().as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
            assert!(stdout.starts_with("open begin\none begin\n"), "{login}: {stdout}");
            let one = parse(&Marker("one".into()), &stdout, &stderr);
            assert_eq!(one, Some((3, "a name|a\\tb|c|in\\put\n\t'x'", "")), "{login}: {stdout}");
            assert_eq!(parse(&Marker("two".into()), &stdout, &stderr), Some((0, "", "bad\n")), "{login}: {stderr}");
            assert!(!stdout.contains("never") && !stdout.contains("three"), "{login}: {stdout}");
            assert!(stderr_has_ended(&Marker("two".into()), stderr.as_bytes()));
        }
        // What is not a request is the input of one that another process has read.
        for odd in ["input\n", "\n", "open \n", "open x\n", "x open\n"] {
            let script = format!(
                "printf '{}' | {}",
                format!("{}{odd}", greeting(&open)).replace('\n', "\\n"),
                open_command(&open)
            );
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(output.status.code(), Some(EXIT_NO_SCRIPT), "{odd:?}");
        }
        for eaten in ["\n\n\nopen\n", "\nopen\n", "open\n", ""] {
            let script = open_command(&open);
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &format!("printf '{}' | {script}", eaten.replace('\n', "\\n"))]);
            let output = shell.output().unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(EXIT_NO_SCRIPT), 0), "{eaten:?}");
            assert_eq!(String::from_utf8(output.stderr).unwrap().trim(), NO_SCRIPT);
        }
    }

    #[test]
    fn markers_are_in_no_message() {
        let marker = Marker::random();
        let output = format!(
            "Welcome{}Out of memory\n\n{} 0\ngangplank-web1 is gone\n{}",
            marker.begin(),
            marker.part(),
            marker.end()
        );
        assert_eq!(without_markers(&output).trim(), "Welcome\nOut of memory\n\n\ngangplank-web1 is gone");
    }

    #[test]
    fn markers_differ() {
        assert_ne!(Marker::random(), Marker::random());
    }
}
