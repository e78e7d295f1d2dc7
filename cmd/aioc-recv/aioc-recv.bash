# Completion of aioc-recv for bash.
# Made by make completions; changes are lost.
_aioc_recv() {
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
	-connector | -format | -idle | -j | -limit | -n | -timeout | -tries | -type)
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W '-0 -config -connector -dir -drain -envelope -format -h -idle -j -limit -n -raw -timeout -tries -type -version' -- "$cur")
	fi
}
complete -o default -F _aioc_recv aioc-recv
