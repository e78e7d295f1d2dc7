# Completion of aioc-chat for bash.
# Made by make completions; changes are lost.
_aioc_chat() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	case $prev in
	-upload)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-bind | -exec | -port | -target)
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W '-accept -bind -exec -h -plain -port -target -upload -version' -- "$cur")
	fi
}
complete -o default -F _aioc_chat aioc-chat
