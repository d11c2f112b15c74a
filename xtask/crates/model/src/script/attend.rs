//! Scripts whose output is streamed, and that end when the stream is closed.

use crate::shell::quote;

/// Runs a script whose input is the first line on stdin, encoded by [`one_line`](crate::frame::one_line), and
/// kills it with its children when stdin closes, which is all that a host notices of a lost connection. SIGTERM is
/// followed by SIGKILL after two seconds. A program with a process group of its own is not reached.
pub fn attended(script: &str) -> String {
    format!(
        "IFS= read -r input || exit 255
exec 3<&0
(while IFS= read -r more; do :; done; trap '' TERM; kill -TERM 0; sleep 2; kill -KILL 0) <&3 3<&- > /dev/null 2>&1 &
watcher=$!
printf %b \"$input\" | (exec 3<&-
{script}
)
code=$?
kill $watcher 2> /dev/null; wait $watcher 2> /dev/null
exit $code
"
    )
}

/// Executes a program in the live release. Its variables come on stdin, because they may be secret; the program's stdin
/// is empty. After `exec` no word is a keyword or an assignment.
pub fn exec(root: &str, words: &[String]) -> String {
    let root = quote(root);
    let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
    format!(
        "umask 022
cd -P -- {root}/current/ 2> /dev/null || {{ echo nothing is live in {root} >&2; exit 1; }}
vars=$(cat); eval \"$vars\"
exec {} < /dev/null
",
        words.join(" ")
    )
}
