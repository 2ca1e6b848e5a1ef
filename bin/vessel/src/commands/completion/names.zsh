# Names that only the node knows, where a verb takes them.
_vessel_ask() {
    local -a ask names
    ask=(vessel)
    [[ -n ${opt_args[--root]} ]] && ask+=(--root ${opt_args[--root]})
    names=(${(f)"$($ask "$@" --quiet 2>/dev/null)"})
    compadd -a names
}
_vessel_ves() { _vessel_ask list }
_vessel_templates() { _vessel_ask template list }
