# Completion of aioc-send for bash.
# Made by make completions; changes are lost.
_aioc_send() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	case $prev in
	-binary | -config | -file)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-dir)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	-connector | -file-name | -file-type | -id | -owner | -request-id | -response-id | -tag | -timeout | -to | -ttl | -type)
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W '-0 -ack -await -binary -config -connector -delete -dir -envelope -file -file-name -file-type -h -id -lines -owner -publish -raw -request-id -response-id -tag -timeout -to -ttl -type -version -wait' -- "$cur")
	fi
}
complete -o default -F _aioc_send aioc-send
