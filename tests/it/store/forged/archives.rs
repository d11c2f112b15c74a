//! Forged archives: the manifest says one thing, and a parser of tar could read another.

use super::tar::{END, Header, entry, gzip, long, member, padded, pax, row};
use super::{Forgery, Named, link, refuse_all};

/// A forgery made from the honest release.
fn forged(edit: impl FnOnce(&mut Forgery)) -> Forgery {
    let mut forgery = Forgery::new();
    edit(&mut forgery);
    forgery
}

/// The header of `bin/app`, edited.
fn program(edit: impl FnOnce(&mut Header) -> &mut Header) -> Forgery {
    let mut header = Header::new(b'0', "bin/app", 0o755, 10);
    edit(&mut header);
    forged(|it| it.entries[0] = [header.done(), padded(b"#!/bin/sh\n")].concat())
}

/// `bytes` before the entry of `top/file`.
fn before_file(bytes: Vec<u8>) -> Forgery {
    forged(|it| it.entries.insert(1, bytes))
}

/// See `extended_headers_are_refused`.
fn extended_headers() -> Vec<Named> {
    let evil = entry(b'0', "bin/app", 0o755, b"#!/bin/evil\n");
    let sums = entry(b'0', ".gangplank/SHA256SUMS", 0o644, b"evil");
    let hiding = |bytes: &[u8]| {
        let mut header = Header::new(b'2', "top/link", 0o755, bytes.len() as u64);
        [header.link("file").done(), bytes.to_vec()].concat()
    };
    vec![
        ("a link with a size hides a program", forged(|it| it.entries[2] = hiding(&evil))),
        ("a link with a size hides digests", forged(|it| it.entries[2] = hiding(&[evil.clone(), sums].concat()))),
        ("GNU L before a short name", before_file(long(b'L', "top/file"))),
        ("GNU L with another name", before_file(long(b'L', "bin/evil"))),
        ("GNU K before a short target", forged(|it| it.entries.insert(2, long(b'K', "file")))),
        ("GNU K with another target", forged(|it| it.entries.insert(2, long(b'K', "/etc/passwd")))),
        (
            "GNU K, then linkpath",
            forged(|it| it.entries.insert(2, [long(b'K', "file"), pax(b'x', &[("linkpath", "/etc/passwd")])].concat())),
        ),
        ("linkpath", forged(|it| it.entries.insert(2, pax(b'x', &[("linkpath", "/etc/passwd")])))),
        (
            "linkpath twice",
            forged(|it| it.entries.insert(2, pax(b'x', &[("linkpath", "/etc/passwd"), ("linkpath", "file")]))),
        ),
        ("path", before_file(pax(b'x', &[("path", "bin/evil")]))),
        ("path twice", before_file(pax(b'x', &[("path", "bin/evil"), ("path", "top/file")]))),
        ("path that says the same", before_file(pax(b'x', &[("path", "top/file")]))),
        ("size", before_file(pax(b'x', &[("size", "0")]))),
        ("mtime", before_file(pax(b'x', &[("mtime", "1.5")]))),
        ("a global header", before_file(pax(b'g', &[("path", "bin/evil")]))),
        (
            "a sparse file of POSIX",
            before_file(pax(
                b'x',
                &[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.name", "bin/evil"),
                    ("GNU.sparse.realsize", "6"),
                ],
            )),
        ),
        ("a newline in a value", before_file(pax(b'x', &[("comment", "x\n19 path=bin/evil\n")]))),
        ("SCHILY.xattr", before_file(pax(b'x', &[("SCHILY.xattr.security.capability", "x")]))),
        ("a volume label", before_file(entry(b'V', "label", 0o644, b""))),
        ("a dump directory", before_file(entry(b'D', "top", 0o755, b"Yfile\0\0"))),
        ("a volume that goes on", before_file(entry(b'M', "top/file", 0o644, b"hello\n"))),
        ("an old long name", before_file(entry(b'N', "x", 0o644, b"Rename top/file to bin/evil\n"))),
    ]
}

#[test]
fn extended_headers_are_refused() {
    refuse_all(&extended_headers());
}

/// See `kinds_and_fields_of_headers_are_refused`.
fn kinds_and_fields_of_headers() -> Vec<Named> {
    let kind = |kind: u8| program(move |it| it.set(156, &[kind]));
    let mode = |mode: u64| program(move |it| it.number(100, 8, mode));
    let named = |name: &'static str| program(move |it| it.name(name));
    vec![
        ("a hard link", program(|it| it.set(156, b"1").link("/etc/passwd").number(124, 12, 0))),
        ("a symbolic link for a file", program(|it| it.set(156, b"2").link("/etc/passwd").number(124, 12, 0))),
        ("a character device", kind(b'3')),
        ("a block device", kind(b'4')),
        ("a directory", kind(b'5')),
        ("a pipe", kind(b'6')),
        ("a contiguous file", kind(b'7')),
        ("an old file", kind(0)),
        ("a sparse file", kind(b'S')),
        ("an unknown kind", kind(b'Z')),
        ("set-uid", mode(0o4755)),
        ("set-gid", mode(0o2755)),
        ("sticky", mode(0o1755)),
        ("writable by all", mode(0o777)),
        ("no mode", mode(0)),
        ("an owner", program(|it| it.number(108, 8, 1000))),
        ("a group", program(|it| it.number(116, 8, 1000))),
        ("a name of an owner", program(|it| it.set(265, b"root"))),
        ("another time", program(|it| it.number(136, 12, 1))),
        ("a time before 1970", program(|it| it.set(136, &[0xff; 12]))),
        ("numbers of a device", program(|it| it.set(329, b"0000001\0"))),
        ("a size in base 256", program(|it| it.set(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]))),
        ("a size with blanks", program(|it| it.set(124, b"         12 "))),
        ("a size that is too large", program(|it| it.number(124, 12, 1 << 32))),
        ("the magic of POSIX", program(|it| it.set(257, b"ustar\x0000"))),
        ("no magic", program(|it| it.set(257, &[0; 8]))),
        ("a prefix", program(|it| it.set(257, b"ustar\x0000").set(345, b"evil"))),
        ("something behind the name", program(|it| it.set(0, b"bin/app\0evil"))),
        ("a name with a dot", named("./bin/app")),
        ("a name with two slashes", named("bin//app")),
        ("an absolute name", named("/bin/app")),
        ("a name that leaves", named("../bin/app")),
        ("another name", named("bin/evil")),
        ("a wrong checksum", forged(|it| it.entries[0][150] ^= 1)),
    ]
}

#[test]
fn kinds_and_fields_of_headers_are_refused() {
    refuse_all(&kinds_and_fields_of_headers());
}

/// See `order_padding_and_ends_of_archives_are_refused`.
fn order_padding_and_ends_of_archives() -> Vec<Named> {
    let extra = || entry(b'0', "top/more", 0o644, b"more");
    vec![
        ("bytes between files", forged(|it| it.entries[0][600] = 1)),
        ("a block of zeros between files", before_file(vec![0; 512])),
        ("a file more", forged(|it| it.entries.push(extra()))),
        ("a directory more", forged(|it| it.entries.insert(0, entry(b'5', "bin/", 0o755, b"")))),
        ("a program with set-uid more", forged(|it| it.entries.push(entry(b'0', "top/su", 0o4755, b"x")))),
        ("a device more", forged(|it| it.entries.push(entry(b'3', "top/null", 0o644, b"")))),
        ("a file of the engine's more", forged(|it| it.entries.push(entry(b'0', ".gangplank/SHA256SUMS", 0o644, b"")))),
        ("a file behind the end", forged(|it| it.end.extend(extra()))),
        ("a file behind the end and another end", forged(|it| it.end.extend([extra(), END.to_vec()].concat()))),
        ("no end", forged(|it| it.end.clear())),
        ("half an end", forged(|it| it.end.truncate(512))),
        ("an end as long as GNU tar makes it", forged(|it| it.end = vec![0; 10_240 - 5 * 512])),
        ("bytes behind the end", forged(|it| it.end.push(1))),
        ("another order", forged(|it| it.entries.swap(0, 1))),
        ("a file twice", forged(|it| it.entries.insert(1, it.entries[0].clone()))),
        ("a file less", forged(|it| drop(it.entries.remove(1)))),
        ("a link less", forged(|it| drop(it.entries.remove(2)))),
        ("differs from the manifest", forged(|it| it.entries[0][514] ^= 1)),
        ("a content that is cut", forged(|it| it.entries[1].truncate(515))),
        ("another link", forged(|it| it.entries[2] = link("top/link", "../bin/app"))),
        ("nothing", forged(|it| it.entries.clear())),
    ]
}

#[test]
fn order_padding_and_ends_of_archives_are_refused() {
    refuse_all(&order_padding_and_ends_of_archives());
}

/// See `forged_compression_and_bombs_are_refused`.
fn forged_compression_and_bombs() -> Vec<Named> {
    let honest = || [Forgery::new().entries.concat(), END.to_vec()].concat();
    let hidden = row(&entry(b'0', "top/more", 0o644, b"more"));
    // Two members that say that they are one.
    let two = [row(&honest()), hidden.clone()].concat();
    let mut one = two.clone();
    let length = u32::try_from(one.len()).unwrap();
    one[16..20].copy_from_slice(&length.to_le_bytes());
    let bundle = |bytes: Vec<u8>| forged(|it| it.bundle = Some(bytes));
    // Two GiB of zeros in two megabytes.
    let zeros = member(&vec![0; 1 << 20]).repeat(2048);
    let huge = |kind: u8| [member(&Header::new(kind, "././@LongLink", 0o644, 2 << 30).done()), zeros.clone()].concat();
    vec![
        ("a second member", bundle(two)),
        ("a member in a member", bundle(one)),
        ("bytes behind the last member", bundle([row(&honest()), b"more".to_vec()].concat())),
        ("a plain gzip behind the last member", bundle([row(&honest()), gzip(b"more")].concat())),
        ("a long name of two gigabytes", bundle(huge(b'L'))),
        ("a long target of two gigabytes", bundle(huge(b'K'))),
        ("an extended header of two gigabytes", bundle(huge(b'x'))),
        ("two gigabytes behind the end", bundle([row(&honest()), zeros.clone()].concat())),
        ("a plain gzip of a file more", bundle(gzip(&[honest(), entry(b'0', "x", 0o644, b"")].concat()))),
        ("no gzip at all", bundle(honest())),
        ("nothing", bundle(vec![])),
    ]
}

#[test]
fn forged_compression_and_bombs_are_refused() {
    refuse_all(&forged_compression_and_bombs());
}

/// All of this file.
#[cfg(feature = "s3")]
pub fn all() -> Vec<Named> {
    [
        extended_headers(),
        kinds_and_fields_of_headers(),
        order_padding_and_ends_of_archives(),
        forged_compression_and_bombs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
