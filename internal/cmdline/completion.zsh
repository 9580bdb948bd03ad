#compdef voltar
# zsh completion for voltar: the program itself says what may stand at the cursor.
_voltar() {
    local -a candidates described
    local candidate
    candidates=("${(@f)$(${words[1]} complete -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    case ${candidates[1]} in
    :file) _files; return ;;
    :folder) _files -/; return ;;
    '') return 1 ;;
    esac
    for candidate in $candidates; do
        described+=("${${candidate%%$'\t'*}//:/\\:}:${candidate#*$'\t'}")
    done
    _describe voltar described
}
# Loaded by name from a folder of functions it is called at once; sourced, it registers itself.
if [[ ${funcstack[1]} == _voltar ]]; then
    _voltar "$@"
else
    compdef _voltar voltar
fi
