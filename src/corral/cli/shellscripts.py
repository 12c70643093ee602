"""What makes bash, zsh and fish complete the words of `corral`, by asking `corral __complete`.

It answers a candidate and its description on each line, and at the end a line with a sum of: 2 no blank after it,
4 no names of files, 16 only names of folders.
"""

from __future__ import annotations

_BASH = r"""# completions of corral for bash
__corral_complete() {
    local cur words cword lines line value strip directive
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n "=:" cur words cword
    else
        read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
        [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
        cword=$((${#words[@]} - 1))
        cur=${words[cword]}
    fi
    COMPREPLY=()
    local program=${words[0]}
    [[ ${program##*/} == corral ]] || program=corral
    mapfile -t lines < <("$program" __complete "${words[@]:1:cword}" 2>/dev/null)
    [[ ${#lines[@]} -gt 0 ]] || return
    directive=${lines[-1]#:}
    unset 'lines[-1]'
    # bash breaks words at these characters and wants only what follows the last of them
    strip=
    [[ $COMP_WORDBREAKS == *:* ]] && strip=${cur%"${cur##*[:=]}"}
    for line in "${lines[@]}"; do
        value=${line%%$'\t'*}
        COMPREPLY+=("${value#"$strip"}")
    done
    ((directive & 2)) && compopt -o nospace
    if ((directive & 16)); then
        compopt -o dirnames
    elif ((!(directive & 4))); then
        compopt -o default
    fi
}
complete -F __corral_complete corral
"""

_ZSH = r"""#compdef corral
# completions of corral for zsh
_corral() {
    local -a lines values options
    local directive line value
    local program=${(Q)words[1]}
    [[ ${program:t} == corral ]] || program=corral
    lines=("${(@f)$("$program" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${lines[-1]#:}
    [[ -n $directive ]] || return 1
    lines[-1]=()
    for line in $lines; do
        value=${line%%$'\t'*}
        values+=("${value//:/\\:}${${line#*$'\t'}:+:${line#*$'\t'}}")
    done
    (( directive & 2 )) && options=(-S '')
    local done=1
    (( $#values )) && _describe -t values corral values $options && done=0
    if (( directive & 16 )); then
        _files -/ && done=0
    elif (( ! (directive & 4) && ! $#values )); then
        _files && done=0
    fi
    return done
}
if [[ $funcstack[1] == _corral ]]; then
    _corral "$@"
else
    compdef _corral corral
fi
"""

_FISH = r"""# completions of corral for fish
function __corral_complete
    set -l tokens (commandline -opc)
    set -l current (commandline -ct)
    set -l program $tokens[1]
    string match -qr '(^|/)corral$' -- $program; or set program corral
    set -l lines ($program __complete $tokens[2..-1] "$current" 2>/dev/null)
    test (count $lines) -gt 0; or return
    set -l directive (string sub -s 2 -- $lines[-1])
    set -e lines[-1]
    test (count $lines) -gt 0; and printf '%s\n' $lines
    if test (math "bitand($directive, 16)") -ne 0
        __fish_complete_directories "$current"
    else if test (math "bitand($directive, 4)") -eq 0; and test (count $lines) -eq 0
        __fish_complete_path "$current"
    end
end
complete -c corral -f -a '(__corral_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
