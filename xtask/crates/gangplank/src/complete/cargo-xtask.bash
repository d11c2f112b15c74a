# Completes `cargo xtask` in the projects that have it; whatever else is typed after `cargo` is for the completion that
# was there before. Made by `cargo xtask completions bash`, works with bash 3.2 and newer.

# Finds the xtask of the project around the current directory, as it was last compiled. It is asked only where it is
# Gangplank's: nobody knows what another xtask does when it is run.
_cargo_xtask_program() {
    local dir=$PWD target
    until [[ -f $dir/xtask/Cargo.toml ]]; do
        [[ $dir ]] || return 1
        dir=${dir%/*}
    done
    grep -q '^gangplank' "$dir/xtask/Cargo.toml" || return 1
    target=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-$dir/target}}
    program=$target/debug/xtask
    # An xtask with a workspace of its own is compiled there.
    [[ -x $program ]] || program=$dir/xtask/target/debug/xtask
    [[ -x $program ]]
}

# Whoever completed `cargo` before us. bash-completion looks for that when it is first needed, and so do we.
_cargo_xtask_find_other() {
    local spec
    if ! spec=$(complete -p cargo 2>/dev/null) || [[ $spec == *' _cargo_xtask '* && $1 == load ]]; then
        if declare -F _comp_load >/dev/null; then
            _comp_load cargo
        elif declare -F _completion_loader >/dev/null; then
            _completion_loader cargo
        fi
        spec=$(complete -p cargo 2>/dev/null)
    fi
    if [[ $spec =~ -F\ ([^ ]+) && ${BASH_REMATCH[1]} != _cargo_xtask ]]; then
        _cargo_xtask_other=${BASH_REMATCH[1]}
    fi
}

_cargo_xtask() {
    # bash splits words at `=`, `:` and `@`, too: what stands together on the line is one word again.
    local line=${COMP_LINE:0:COMP_POINT} words=() last=-1 at=1 i word
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i == 0)) || [[ $line == [[:space:]]* ]]; then
            words[++last]=
            line=${line#"${line%%[![:space:]]*}"}
        fi
        ((i < COMP_CWORD)) || word=$line
        words[last]+=$word
        line=${line#"$word"}
    done
    while [[ ${words[at]} == [+-]* ]]; do ((at++)); done

    if ((at >= last)) || [[ ${words[at]} != xtask ]]; then
        if [[ -z $_cargo_xtask_other ]]; then
            _cargo_xtask_find_other load
            complete -F _cargo_xtask cargo
        fi
        if [[ $_cargo_xtask_other ]]; then
            "$_cargo_xtask_other" "$@"
        else
            compopt -o default 2>/dev/null
        fi
        return 0
    fi

    local program candidate before
    COMPREPLY=()
    _cargo_xtask_program || return 0
    # What bash will replace is only the end of the word.
    before=${words[last]%"$2"}
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        COMPREPLY+=("${candidate#"$before"}")
    done < <("$program" complete -- "${words[@]:at+1}" 2>/dev/null </dev/null)
    compopt -o nosort 2>/dev/null
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

if complete -p cargo >/dev/null 2>&1; then
    _cargo_xtask_find_other
fi
complete -F _cargo_xtask cargo
