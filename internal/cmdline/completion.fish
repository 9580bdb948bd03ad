# fish completion for voltar: the program itself says what may stand at the cursor.
function __voltar_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l current (commandline -ct)
    set -l candidates (command $program complete -- $words "$current" 2>/dev/null)
    switch "$candidates[1]"
        case :file
            __fish_complete_path "$current"
        case :folder
            __fish_complete_directories "$current"
        case '*'
            printf '%s\n' $candidates
    end
end
complete -c voltar -f -a '(__voltar_complete)'
