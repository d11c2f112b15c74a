//! Scripts that compare an installed release with its lists of entries and digests.

use crate::release::id::ReleaseId;
use crate::release::layout::META;
use crate::shell::in_root;

/// `check_sums LIST` checks files by a list in the format of `sha256sum`, and prints those that differ; `is DIGEST FILE`
/// checks one file. `$check` is the checker of coreutils or macOS.
///
/// OpenSSL uses the SHA instructions of the processor, which that of coreutils often does not, so it is asked first: if
/// its list is the same, so are the files. Otherwise the checker says which differ. It also decides where a name has a
/// backslash, which each escapes differently.
pub(crate) const SUMS_TOOL: &str = r#"if command -v sha256sum > /dev/null 2>&1; then check='sha256sum -c'; else check='shasum -a 256 -c'; fi
is() { printf '%s  %s\n' "$1" "$2" | $check - > /dev/null 2>&1; }
is_by_openssl() {
  command -v openssl > /dev/null 2>&1 && ! grep -q '\\' "$1" || return 1
  sed 's|^.\{66\}|./|' "$1" | tr '\n' '\000' | xargs -0 openssl dgst -sha256 -r 2> /dev/null |
    sed 's|^\([0-9a-f]\{64\}\) [*][.]/|\1  |' | cmp -s - "$1"
}
check_sums() { is_by_openssl "$1" || $check "$1"; }"#;

/// `compare TEXT all` prints the differences between this directory and a list of entries (see `Manifest::entries`):
/// lines of `missing` or `extra`, a tab, and the entry; `missing` first. With `own` instead of `all`, links made by
/// [`super::share`] and extra directories are not differences. Fails if it could not compare.
///
/// Each line of the list is counted twice and each entry once: three means present, two missing, one extra. Any other
/// number comes from a name with a line break, which no entry of the list has. The last line of the list is never an
/// entry, so it must appear as `missing`: otherwise a `sort` that ran out of room would pass for a comparison. `find
/// -perm` compares all bits, including set-uid. Only GNU's `find` has `-printf`, which needs one process.
pub(crate) const COMPARE: &str = r#"tab=$(printf '\t')
entries() {
  # In a directory of several logins their group may write.
  if grouped ../..; then group=-002; else group=-020; fi
  if find . -prune -printf '' 2> /dev/null; then
    find . -path ./.gangplank -prune -o -path . \
      -o -type d \( -perm $group -o -perm -002 \) -printf "dir that others may write$tab%p\n" \
      -o -type d -printf "dir$tab%p\n" -o -type f -perm 644 -printf "file 644$tab%p\n" \
      -o -type f -perm 755 -printf "file 755$tab%p\n" \
      -o -type f \( -perm -4000 -o -perm -2000 \) -printf "set-id file$tab%p\n" \
      -o -type f -printf "file of another mode$tab%p\n" -o -type l -printf "link$tab%p$tab%l\n" \
      -o -printf "special file$tab%p\n"
    return
  fi
  find . -path ./.gangplank -prune -o -type d ! -perm $group ! -perm -002 -print | sed -n "s|^[.]/|dir$tab&|p"
  find . -path ./.gangplank -prune -o -type d \( -perm $group -o -perm -002 \) -print | sed -n "s|^[.]/|dir that others may write$tab&|p"
  find . -path ./.gangplank -prune -o -type f -perm 644 -print | sed "s|^|file 644$tab|"
  find . -path ./.gangplank -prune -o -type f -perm 755 -print | sed "s|^|file 755$tab|"
  find . -path ./.gangplank -prune -o -type f \( -perm -4000 -o -perm -2000 \) -print | sed "s|^|set-id file$tab|"
  find . -path ./.gangplank -prune -o -type f ! -perm 644 ! -perm 755 ! -perm -4000 ! -perm -2000 -print | sed "s|^|file of another mode$tab|"
  find . -path ./.gangplank -prune -o ! -type f ! -type d ! -type l -print | sed "s|^|special file$tab|"
  find . -path ./.gangplank -prune -o -type l -print | while IFS= read -r link; do
    printf 'link\t%s\t%s\n' "$link" "$(readlink "$link")"
  done
}
shared() {
  while IFS= read -r line; do
    case $line in
      "extra${tab}dir$tab"*) continue ;;
      "extra${tab}link$tab"*)
        link=${line#"extra${tab}link$tab./"}; to=${link#*"$tab"}; link=${link%%"$tab"*}
        up=../../; rest=$link; while [ "$rest" != "${rest#*/}" ]; do up=../$up; rest=${rest#*/}; done
        [ "$to" != "${up}shared/$link" ] || continue ;;
    esac
    printf '%s\n' "$line"
  done
}
compare() {
  odd=$({ printf '%s\nend\n%s\nend\n' "$1" "$1"; entries; } | sort | uniq -c |
    sed -n -e "/^ *3 /d" -e "s|^ *2 |missing$tab|p" -e t -e "s|^ *[0-9]* |extra$tab|p" | sort -r) || return 1
  case $odd in *"missing${tab}end"*) ;; *) echo 'the entries could not be compared' >&2; return 1 ;; esac
  printf '%s\n' "$odd" | grep -v "^missing${tab}end$" | if [ "$2" = own ]; then shared; else cat; fi
}"#;

/// Fails if an entry of an installed release is missing, changed, or an extra set-id file. Prints other extra entries,
/// as [`verify`] does, because an app may write beside its files. A release installed by an engine without [`ENTRIES`]
/// is compared by its digests only.
pub fn verify_files(root: &str, id: &ReleaseId) -> String {
    in_root(
        root,
        &format!(
            "cd ./releases/{id}
{SUMS_TOOL}
{COMPARE}
bad() {{ printf '%s\\n' \"$1\" | head -n 50 >&2; exit {EXIT_VERIFICATION}; }}
[ -f {META}/SHA256SUMS ] || bad '{META}/SHA256SUMS is gone'
said=$(check_sums {META}/SHA256SUMS 2>/dev/null) || bad \"$(printf '%s\\n' \"$said\" | grep -v ': OK$')\"
[ -f {META}/{ENTRIES} ] || exit 0
# Beside the files there are digests of the manifest and of the list of entries.
[ $(($(grep -c '^file ' {META}/{ENTRIES}) + 2)) = $(($(wc -l < {META}/SHA256SUMS))) ] || bad '{META}/SHA256SUMS was changed'
odd=$(compare \"$(cat {META}/{ENTRIES})\" own) || exit {EXIT_VERIFICATION}
! printf '%s\\n' \"$odd\" | grep -q -e \"^missing$tab\" -e \"^extra${{tab}}set-id\" || bad \"$odd\"
[ -z \"$odd\" ] || printf '%s\\n' \"$odd\"
"
        ),
    )
}

/// Compares an installed release with stdin: a line `digests`, the output of `sha256sum`, an empty line, and the list
/// of entries. Prints the files whose digest differs, then a line `entries`, then each `missing` or `extra` entry: that
/// word, a tab, and the entry.
pub fn verify(root: &str, id: &ReleaseId) -> String {
    in_root(
        root,
        &format!(
            "both=$(cat)
cd ./releases/{id}
{SUMS_TOOL}
{COMPARE}
line='
'
sums=${{both%%\"$line$line\"*}}; list=${{both#*\"$line$line\"}}; sums=${{sums#digests}}; sums=${{sums#\"$line\"}}
code=0; said=
[ -z \"$sums\" ] || said=$(printf '%s\\n' \"$sums\" | $check - 2>/dev/null) || code=$?
# A checker that is not there, or that failed, prints nothing.
[ $code = 0 ] || [ -n \"$said\" ] || {{ echo 'cannot check digests' >&2; exit 1; }}
printf '%s\\n' \"$said\" | grep -v ': OK$' | grep . || true
echo entries
compare \"$list\" own
"
        ),
    )
}

/// The list of all entries of a release, in [`META`]: see `Manifest::entries`.
pub const ENTRIES: &str = "entries";

/// Exit code of a script that found bytes that do not match.
pub const EXIT_VERIFICATION: i32 = 77;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    #[test]
    fn entries_are_the_same_with_and_without_gnu_find() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, mode) in [
            ("plain", 0o644),
            ("a b/program", 0o755),
            (".gangplank/manifest.json", 0o644),
            ("open/set-uid", 0o4755),
            ("open/it's $HOME", 0o600),
            ("back\\slash%p", 0o666),
            ("line\nbreak", 0o644),
        ] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), path).unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink("a b/%l", at("link")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let entries = |before: &str| {
            let script = format!("LC_ALL=C; grouped() {{ false; }}\n{COMPARE}\n{before}\nentries");
            let said = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
            assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
            let mut lines: Vec<_> = String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let without = "find() { case $* in *printf*) return 1; esac; command find \"$@\"; }";
        let (gnu, posix) = (entries(""), entries(without));
        assert!(gnu.contains(&"set-id file\t./open/set-uid".to_owned()), "{gnu:?}");
        assert!(gnu.contains(&"dir that others may write\t./open".to_owned()), "{gnu:?}");
        // The second half of a name with a line break differs, and is no entry of any list.
        let whole = |lines: Vec<String>| lines.into_iter().filter(|line| !line.ends_with("break")).collect::<Vec<_>>();
        assert_eq!(whole(gnu), whole(posix));
    }
}
