# Completion of aioc-ctl for bash.
# Made by make completions; changes are lost.
_aioc_ctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	case $prev in
	-config)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-dir)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	-connector | -id | -interval | -ip | -n | -timeout | -type)
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W '-all -config -connector -dir -frames -h -hard -id -interval -ip -json -n -timeout -type -version -yes' -- "$cur")
	else
		local word commands='list status health peers queues stats metrics top ping disconnect blacklist whitelist explain delete-certificate delete-token reload-tokens ignore-traffic log-level subscriptions subscribe purge dead spool start stop restart reload shutdown show config'
		for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
			[[ " $commands " != *" $word "* ]] || return
		done
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	fi
}
complete -o default -F _aioc_ctl aioc-ctl
