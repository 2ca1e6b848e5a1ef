
# Names that only the node knows, where a verb takes them.
function __vessel_ask
    set -l root (string match --regex --groups-only -- '--root[= ](\S+)' (commandline --cut-at-cursor))
    if test -n "$root"
        vessel --root $root[1] $argv --quiet 2>/dev/null
    else
        vessel $argv --quiet 2>/dev/null
    end
end

complete -c vessel -n "__fish_seen_subcommand_from start" -f -a "(__vessel_ask list --state stopped)"
complete -c vessel -n "__fish_seen_subcommand_from stop" -f -a "(__vessel_ask list --state running --state starting --state paused)"
complete -c vessel -n "__fish_seen_subcommand_from restart pause exec enter" -f -a "(__vessel_ask list --state running)"
complete -c vessel -n "__fish_seen_subcommand_from resume" -f -a "(__vessel_ask list --state paused)"
complete -c vessel -n "__fish_seen_subcommand_from delete rm console logs isolation set stats top; and not __fish_seen_subcommand_from template" -f -a "(__vessel_ask list)"
complete -c vessel -n "__fish_seen_subcommand_from show; and not __fish_seen_subcommand_from template operation pool node" -f -a "(__vessel_ask list)"
complete -c vessel -n "__fish_seen_subcommand_from cp" -a "(__vessel_ask list | string replace --regex '\$' ':/')"
complete -c vessel -n "__fish_seen_subcommand_from template; and __fish_seen_subcommand_from show remove rm verify update diff" -f -a "(__vessel_ask template list)"
complete -c vessel -n "__fish_seen_subcommand_from create" -s t -l template -x -a "(__vessel_ask template list)"
