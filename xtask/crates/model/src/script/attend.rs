//! Scripts that somebody listens to while they run, and that end when nobody does any more.

use crate::script::quote;

/// Runs a script whose input is the first line on stdin, as [`one_line`](crate::frame::one_line) makes it, and ends it with all that it has
/// started when stdin closes: that is all that a host hears of it when whoever listens is gone, however that went. What is
/// left two seconds after SIGTERM is killed. A program that makes a process group of its own is out of reach.
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

/// Becomes a program in the live release. Its variables come on stdin, because they may be secret; it reads nothing.
/// After `exec` no word is a keyword or an assignment.
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
