//! What the service was asked to do.
//!
//! Arguments and environment are turned into a value in one place, without touching the process or the disk, so that
//! every mistake a person can make at the prompt is a line in a table of tests.

use std::borrow::Cow;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The answer to `--help`.
pub const USAGE: &str = concat!(
    "\
Serves a folder of static files, /health and /version over HTTP.

Usage: ",
    env!("CARGO_PKG_NAME"),
    " [--help | --version]

Environment:
  HOST        address to listen on [default: 127.0.0.1]
  PORT        port to listen on, 0 for any free one [default: 8080]
  STATIC_DIR  folder of files to serve [default: the one that was shipped with the program]
  LISTEN_FDS  set by systemd where it hands over a socket, which is then used instead of HOST and PORT"
);

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 8080;

/// What one run of the program does.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
    /// Serve until told to stop.
    Serve(Settings),
}

/// Where to listen and what to serve.
#[derive(Debug, PartialEq)]
pub struct Settings {
    /// The address and port to listen on.
    pub address: SocketAddr,
    /// The folders that may hold the static files, the best one first.
    pub static_folders: Vec<PathBuf>,
}

/// Why the program ends without having done its work.
#[derive(Debug, PartialEq)]
pub struct CliError {
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// The exit code: 2 when the program was called wrongly, 1 for everything else.
    pub code: u8,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "error: {}\nhint: {}", self.message, self.hint)
    }
}

impl Error for CliError {}

/// Reads the arguments (without the program's name) and the environment.
///
/// `executable` is the path of the running binary, where that is known: the files are shipped next to it.
pub fn read(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    executable: Option<&Path>,
) -> Result<Command, CliError> {
    let (mut help, mut version) = (false, false);
    for arg in args {
        match arg.to_str() {
            Some("-h" | "--help") => help = true,
            Some("-V" | "--version") => version = true,
            _ => {
                let message = format!("unknown argument {:?}", arg.to_string_lossy());
                return Err(misuse(message, concat!("`", env!("CARGO_PKG_NAME"), " --help` lists what there is")));
            }
        }
    }
    if help {
        return Ok(Command::Help);
    }
    if version {
        return Ok(Command::Version);
    }
    // An empty variable is how a shell or a unit file says "not set".
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    Ok(Command::Serve(Settings {
        address: SocketAddr::new(host(env("HOST").as_deref())?, port(env("PORT").as_deref())?),
        static_folders: static_folders(env("STATIC_DIR"), executable),
    }))
}

impl Settings {
    /// The first of the folders that exists.
    pub fn static_folder(&self) -> Result<&Path, CliError> {
        let found = self.static_folders.iter().find(|folder| folder.is_dir());
        found.map(PathBuf::as_path).ok_or_else(|| {
            let tried: Vec<_> = self.static_folders.iter().map(|folder| folder.display().to_string()).collect();
            CliError {
                message: format!("no folder of static files at {}", tried.join(", ")),
                hint: "set STATIC_DIR to the folder that holds index.html".to_owned(),
                code: 1,
            }
        })
    }
}

fn host(value: Option<&OsStr>) -> Result<IpAddr, CliError> {
    parse(value, HOST).map_err(|text| {
        misuse(
            format!("HOST is {text:?}, not an IP address"),
            "set HOST to 127.0.0.1 for this machine only, or to 0.0.0.0 for every network it is in",
        )
    })
}

fn port(value: Option<&OsStr>) -> Result<u16, CliError> {
    parse(value, PORT).map_err(|text| {
        misuse(
            format!("PORT is {text:?}, not a port number"),
            "set PORT to a number from 0 to 65535, or leave it out for 8080",
        )
    })
}

/// The value, the default when there is none, or the text that could not be read.
fn parse<T: FromStr>(value: Option<&OsStr>, default: T) -> Result<T, Cow<'_, str>> {
    let Some(value) = value else { return Ok(default) };
    let text = value.to_string_lossy();
    text.parse().map_err(|_| text)
}

/// A folder that was named is the only one; a typo in it must not be hidden by some other folder that exists.
fn static_folders(named: Option<OsString>, executable: Option<&Path>) -> Vec<PathBuf> {
    if let Some(folder) = named {
        return vec![folder.into()];
    }
    // A bundle is `bin/app` and `static/`; a binary below `target` has no such neighbour.
    let bin = executable.and_then(Path::parent).filter(|folder| folder.ends_with("bin"));
    let shipped = bin.and_then(Path::parent).map(|root| root.join("static"));
    // `cargo run` starts in the workspace or in this package.
    shipped.into_iter().chain([PathBuf::from("app/static"), PathBuf::from("static")]).collect()
}

fn misuse(message: String, hint: &str) -> CliError {
    CliError { message, hint: hint.to_owned(), code: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Args = &'static [&'static str];
    type Env = &'static [(&'static str, &'static str)];

    const ELSEWHERE: &str = "/home/ana/shop/target/debug/app";

    fn read_from(args: &[&str], env: &[(&str, &str)], executable: &str) -> Result<Command, CliError> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        read(args.iter().map(OsString::from), lookup, Some(Path::new(executable)))
    }

    fn serve(address: &str, folders: &[&str]) -> Command {
        Command::Serve(Settings {
            address: address.parse().expect("an address"),
            static_folders: folders.iter().map(PathBuf::from).collect(),
        })
    }

    #[test]
    fn what_is_asked_for() {
        let near: &[&str] = &["app/static", "static"];
        #[rustfmt::skip]
        let table: &[(Args, Env, &str, Command)] = &[
            (&["--help"], &[], ELSEWHERE, Command::Help),
            (&["-h"], &[], ELSEWHERE, Command::Help),
            (&["--version"], &[], ELSEWHERE, Command::Version),
            (&["-V"], &[], ELSEWHERE, Command::Version),
            (&["--version", "--help"], &[], ELSEWHERE, Command::Help),
            // A broken environment does not keep anyone from the help.
            (&["--help"], &[("PORT", "x")], ELSEWHERE, Command::Help),
            (&[], &[], ELSEWHERE, serve("127.0.0.1:8080", near)),
            (&[], &[("PORT", "9000")], ELSEWHERE, serve("127.0.0.1:9000", near)),
            (&[], &[("PORT", "0")], ELSEWHERE, serve("127.0.0.1:0", near)),
            (&[], &[("PORT", ""), ("HOST", ""), ("STATIC_DIR", "")], ELSEWHERE, serve("127.0.0.1:8080", near)),
            (&[], &[("HOST", "0.0.0.0")], ELSEWHERE, serve("0.0.0.0:8080", near)),
            (&[], &[("HOST", "::1"), ("PORT", "1")], ELSEWHERE, serve("[::1]:1", near)),
            (&[], &[("STATIC_DIR", "/srv/www")], "/opt/bin/app", serve("127.0.0.1:8080", &["/srv/www"])),
            (&[], &[], "/opt/bin/app", serve("127.0.0.1:8080", &["/opt/static", "app/static", "static"])),
            (&[], &[], "/bin/app", serve("127.0.0.1:8080", &["/static", "app/static", "static"])),
        ];
        for (args, env, executable, expected) in table {
            assert_eq!(read_from(args, env, executable).as_ref(), Ok(expected), "{args:?} {env:?} {executable}");
        }
    }

    #[test]
    fn what_is_refused() {
        let table: &[(Args, Env, &str)] = &[
            (&["--prot"], &[], "unknown argument \"--prot\""),
            (&["serve"], &[], "unknown argument \"serve\""),
            (&[""], &[], "unknown argument \"\""),
            (&["--version", "-x"], &[], "unknown argument \"-x\""),
            (&[], &[("PORT", "http")], "PORT is \"http\", not a port number"),
            (&[], &[("PORT", "65536")], "PORT is \"65536\", not a port number"),
            (&[], &[("PORT", "-1")], "PORT is \"-1\", not a port number"),
            (&[], &[("PORT", " 80")], "PORT is \" 80\", not a port number"),
            (&[], &[("HOST", "localhost")], "HOST is \"localhost\", not an IP address"),
            (&[], &[("HOST", "127.0.0.1:80")], "HOST is \"127.0.0.1:80\", not an IP address"),
        ];
        for (args, env, message) in table {
            let failure = read_from(args, env, ELSEWHERE).expect_err(message);
            assert_eq!((failure.message.as_str(), failure.code), (*message, 2));
            assert!(failure.to_string().contains("\nhint: "), "{failure}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_refused_too() {
        use std::os::unix::ffi::OsStringExt;

        let odd = || OsString::from_vec(vec![0xff]);
        let argument = read([odd()], |_| None, None).expect_err("an argument");
        assert_eq!(argument.message, "unknown argument \"\u{fffd}\"");
        let port = read([], |name| (name == "PORT").then(odd), None).expect_err("a port");
        assert_eq!(port.message, "PORT is \"\u{fffd}\", not a port number");
    }

    #[test]
    fn the_first_folder_that_exists_is_served() {
        let folders = |folders: &[&Path]| Settings {
            address: SocketAddr::new(HOST, PORT),
            static_folders: folders.iter().map(PathBuf::from).collect(),
        };
        let here = std::env::temp_dir();
        let (missing, other) = (here.join("app-no-such-folder"), here.join("app-no-such-folder-either"));
        assert_eq!(folders(&[&missing, &here]).static_folder(), Ok(here.as_path()));

        let failure = folders(&[&missing, &other]).static_folder().expect_err("nothing to serve");
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains(&format!("{}, {}", missing.display(), other.display())), "{failure}");
    }
}
