# Completes `cargo xtask` in the projects that have it; whatever else is typed after `cargo` is for the completion that
# was there before. Made by `cargo xtask completions zsh`.

(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }

# Finds the xtask of the project around the current directory, as it was last compiled. It is asked only where it is
# Gangplank's: nobody knows what another xtask does when it is run.
_cargo_xtask_program() {
    local dir=$PWD target
    until [[ -f $dir/xtask/Cargo.toml ]]; do
        [[ -n $dir ]] || return 1
        dir=${dir%/*}
    done
    grep -q '^gangplank' $dir/xtask/Cargo.toml || return 1
    target=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-$dir/target}}
    program=$target/debug/xtask
    # An xtask with a workspace of its own is compiled there.
    [[ -x $program ]] || program=$dir/xtask/target/debug/xtask
    [[ -x $program ]]
}

_cargo_xtask() {
    local -i at=2
    while (( at < CURRENT )) && [[ $words[at] == [+-]* ]]; do at+=1; done
    if (( at >= CURRENT )) || [[ $words[at] != xtask ]]; then
        $_cargo_xtask_other "$@"
        return
    fi

    local program line value meaning
    local -a whole begun
    _cargo_xtask_program || return 1
    for line in ${(f)"$($program complete -- "${(@Q)words[at+1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)"}; do
        value=${line%%$'\t'*} meaning=${line#*$'\t'}
        line=${value//:/\\:}${meaning:+:$meaning}
        # A word that goes on gets no space.
        if [[ $value == *[=:/] ]]; then begun+=($line); else whole+=($line); fi
    done
    local -i ret=1
    (( $#whole )) && _describe -V 'cargo xtask' whole && ret=0
    (( $#begun )) && _describe -V 'cargo xtask' begun -S '' && ret=0
    return ret
}

if [[ ${_comps[cargo]} != _cargo_xtask ]]; then
    typeset -g _cargo_xtask_other=${_comps[cargo]:-_default}
fi
compdef _cargo_xtask cargo
