# Completion of aioc-certs for bash.
# Made by make completions; changes are lost.
_aioc_certs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	case $prev in
	-key)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-dir)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	-connector | -days)
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W '-ca -connector -days -dir -h -json -key -next -v -version' -- "$cur")
	else
		local word commands='create list show fingerprint check pack renew delete replace-server revert-server'
		for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
			[[ " $commands " != *" $word "* ]] || return
		done
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	fi
}
complete -o default -F _aioc_certs aioc-certs
