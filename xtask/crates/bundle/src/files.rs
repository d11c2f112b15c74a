//! Opens files in directories that others can write to: regular files only, up to a size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file for reading. A symbolic link, a directory, a pipe, a device or a socket is an error, without
/// blocking.
pub fn open(path: &Path) -> io::Result<File> {
    // `O_NONBLOCK`: a pipe without a writer would block. Regular files are not affected: open(2).
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        // The errors for a link and a socket; macOS and BSD have others.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK | libc::ENXIO | libc::EOPNOTSUPP)) =>
        {
            return Err(not_regular());
        }
        Err(error) => return Err(error),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Reads a regular file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn read_of_special_or_too_large_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "hello").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(&at("file"), 5).unwrap(), b"hello");
        assert_eq!(read(&at("file"), 4).unwrap_err().to_string(), "it is larger than 4 bytes");
        for name in ["link", "zero", "directory", "socket", "pipe"] {
            assert_eq!(open(&at(name)).unwrap_err().to_string(), "it is not a regular file", "{name}");
        }
        assert_eq!(open(&at("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
