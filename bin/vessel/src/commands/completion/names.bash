
# Names that only the node knows, where a verb takes them.
_vessel_names() {
    _vessel "$@"
    local current="$2" previous="$3" word verb="" below="" place
    local -a ask=("$1")
    for ((place = 1; place < COMP_CWORD; place++)); do
        word="${COMP_WORDS[place]}"
        case "$word" in
            --) return ;;
            --root) ask+=(--root "${COMP_WORDS[place + 1]}"); place=$((place + 1)) ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb="$word"; else below="${below:-$word}"; fi ;;
        esac
    done
    [[ $current == -* ]] && return
    case "$previous" in
        -t | --template) ask+=(template list) ;;
        --all | --quiet | --json | --force | --yes | --kill | --no-wait | --follow | --packages | -[aqfy]) previous="" ;;
    esac
    if [[ ${#ask[@]} -eq 1 || ${ask[1]} == --root && ${#ask[@]} -eq 3 ]]; then
        [[ $previous == -* ]] && return
        case "$verb" in
            start) ask+=(list --state stopped) ;;
            stop) ask+=(list --state running --state starting --state paused) ;;
            restart | pause | exec | enter) ask+=(list --state running) ;;
            resume) ask+=(list --state paused) ;;
            delete | rm | console | logs | set | show | isolation | stats | list | ls | top | cp) ask+=(list) ;;
            template)
                [[ $below == show || $below == remove || $below == rm || $below == verify || $below == update || $below == diff ]] || return
                ask+=(template list)
                ;;
            operation | op)
                [[ $below == show || $below == cancel || $below == wait ]] || return
                ask+=(operation list --all)
                ;;
            *) return ;;
        esac
    fi
    local names
    names="$("${ask[@]}" --quiet 2>/dev/null)"
    if [[ $verb == cp ]]; then
        compopt -o nospace 2>/dev/null
        COMPREPLY=($(compgen -f -- "$current") $(compgen -W "$names" -S ":/" -- "$current"))
    else
        COMPREPLY=($(compgen -W "$names" -- "$current"))
    fi
}

complete -F _vessel_names -o bashdefault -o default vessel
