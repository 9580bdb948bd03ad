# bash completion for voltar: the program lists its own commands and flags.
_voltar() {
    local words candidates current=${COMP_WORDS[COMP_CWORD]}
    words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    if [[ $current == -* ]]; then
        candidates=$("${words[@]}" "$current" --generate-bash-completion 2>/dev/null)
    else
        candidates=$("${words[@]}" --generate-bash-completion 2>/dev/null)
    fi
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$current")
}
complete -o default -F _voltar voltar
