# bash completion for voltar: the program itself says what may stand at the cursor.
_voltar() {
    local line=${COMP_LINE:0:COMP_POINT} typed=$2 cut candidate quoted
    local -a words candidates
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    # bash ends words at "@", "=" and ":", and the program does not: bash replaces only $2.
    cut=${words[-1]%"$typed"}
    mapfile -t candidates < <("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null)
    COMPREPLY=()
    case ${candidates[0]-} in
    :file) compopt -o default; return ;;
    :folder) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$typed"); return ;;
    esac
    for candidate in "${candidates[@]}"; do
        candidate=${candidate%%$'\t'*}
        printf -v quoted %q "${candidate#"$cut"}"
        COMPREPLY+=("$quoted")
    done
}
complete -F _voltar voltar
