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
# Loaded by name from a folder of functions it is called at once; sourced, it registers itself.
if [[ ${funcstack[1]} == _voltar ]]; then
    _voltar "$@"
else
    compdef _voltar voltar
fi
