# Completes `cargo xtask` in the projects that have it, beside what fish knows of cargo. Made by
# `cargo xtask completions fish`.

# Finds the xtask of the project around the current directory, as it was last compiled. It is asked only where it is
# Gangplank's: nobody knows what another xtask does when it is run.
function __cargo_xtask_program
    set -l dir $PWD
    while not test -f "$dir/xtask/Cargo.toml"
        test -n "$dir"; or return 1
        set dir (string replace --regex '/[^/]*$' '' -- $dir)
    end
    string match --quiet --regex '^gangplank' <"$dir/xtask/Cargo.toml"; or return 1
    set -l target $dir/target
    test -n "$CARGO_BUILD_TARGET_DIR"; and set target $CARGO_BUILD_TARGET_DIR
    test -n "$CARGO_TARGET_DIR"; and set target $CARGO_TARGET_DIR
    # An xtask with a workspace of its own is compiled there.
    test -x $target/debug/xtask; or set target $dir/xtask/target
    test -x $target/debug/xtask; and echo $target/debug/xtask
end

# The words between `cargo xtask` and the one under the cursor; fails where something else is typed.
function __cargo_xtask_words
    set -l words (commandline --tokenize --current-process --cut-at-cursor)
    set --erase words[1]
    while string match --quiet --regex '^[+-]' -- $words[1]
        set --erase words[1]
    end
    test "$words[1]" = xtask; or return 1
    set --erase words[1]
    test (count $words) -eq 0; or printf '%s\n' $words
end

function __cargo_xtask_complete
    set -l program (__cargo_xtask_program); or return
    $program complete -- (__cargo_xtask_words) (commandline --current-token --cut-at-cursor) 2>/dev/null </dev/null
end

complete --command cargo --condition '__cargo_xtask_words >/dev/null' --no-files --keep-order --arguments '(__cargo_xtask_complete)'
