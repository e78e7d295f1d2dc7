# Completion of aioc-chat for fish.
# Made by make completions; changes are lost.
complete -c aioc-chat -f
complete -c aioc-chat -o accept -d 'ask nobody whether a caller may talk'
complete -c aioc-chat -o bind -x -d 'listen on this address or interface only'
complete -c aioc-chat -o exec -x -d 'give the other end this shell on this host'
complete -c aioc-chat -o h -d 'print this'
complete -c aioc-chat -o plain -d 'no line editing, as when not on a terminal'
complete -c aioc-chat -o port -x -d 'where the end that is called listens (default 10673)'
complete -c aioc-chat -o target -x -d 'the host to call (default: wait for a call)'
complete -c aioc-chat -o upload -r -F -d 'send this file or directory, and leave'
complete -c aioc-chat -o version -d 'print name, version and Go version'
