#compdef voltar
# zsh completion for voltar: the program lists its own commands and flags.
_voltar() {
    local -a candidates
    local current=${words[CURRENT]}
    if [[ $current == -* ]]; then
        candidates=(${(f)"$(${words[1,CURRENT-1]} $current --generate-bash-completion 2>/dev/null)"})
    else
        candidates=(${(f)"$(${words[1,CURRENT-1]} --generate-bash-completion 2>/dev/null)"})
    fi
    _describe 'voltar' candidates || _files
}
compdef _voltar voltar
