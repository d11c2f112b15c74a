//! Finds the process that holds the port of a health check, from `/proc/net/tcp` (sockets) and `/proc/PID/fd` (owners).
//! Without this check, an app started by hand or left by a failed release would pass for a release that never got the
//! port.

/// The status text of an app that ended because it could not listen.
pub(crate) const IN_USE: &str = "its address is in use";

/// A command that tests whether the log on its stdin says so, in the words of libc, Node.js and Java.
pub fn in_use() -> &'static str {
    "grep -qiE 'address (is )?(already )?in use|EADDRINUSE'"
}

/// Prints the process that holds a port, if it runs from this root and does not belong to the service. `ours` is a
/// command that tests whether process `$1` belongs to the service. Other processes may hold the port: a proxy, or one
/// that this login cannot inspect.
///
/// In `/proc/net/tcp` the second field is the local address with the port in hexadecimal, the fourth the state, `0A`
/// for a listening socket, the tenth its inode: `proc(5)`.
pub fn foreign(port: u16, ours: &str) -> String {
    format!(
        "ours() {{ {ours}; }}
owners() {{
  at=
  # A shell reads a pipe byte by byte, so what it does not need is left out before.
  ls -l /proc/[0-9]*/fd 2> /dev/null | grep -e '^/proc/' -e \"socket:.$1[]]\" | while read -r line; do
    case $line in
      /proc/*/fd:) at=${{line#/proc/}}; at=${{at%%/*}};;
      *\"socket:[$1]\") echo \"$at\";;
    esac
  done
}}
foreign=
for socket in $(grep -hs ':{port:04X} ' /proc/net/tcp /proc/net/tcp6 | while read -r _ local _ state _ _ _ _ _ inode _; do
  case $local$state in *:{port:04X}0A) echo \"$inode\";; esac
done); do
  for owner in $(owners \"$socket\"); do
    if ours \"$owner\"; then foreign=; break 2; fi
    for place in exe cwd; do
      case $(readlink \"/proc/$owner/$place\" 2> /dev/null) in \"$(pwd -P)\"/*) foreign=$owner;; esac
    done
  done
done
if [ -n \"$foreign\" ]; then
  echo \"port {port} is held by process $foreign, which was not started by this deploy: on that host, \\`kill $foreign\\` ends it\"
  exit 1
fi
"
    )
}
