# Completion of aioc-recv for fish.
# Made by make completions; changes are lost.
complete -c aioc-recv -f
complete -c aioc-recv -o 0 -d 'print the bytes as they came, and a NUL after each message'
complete -c aioc-recv -o config -r -F -d 'configuration file (default $AIOC_CONFIG)'
complete -c aioc-recv -o connector -x -d 'which connector: a client\'s name, or a server\'s HOST:PORT (default $AIOC_CONNECTOR)'
complete -c aioc-recv -o dir -x -a '(__fish_complete_directories)' -d 'directory of sockets and state (default $AIOC_DIR)'
complete -c aioc-recv -o drain -d 'end when the queue is empty'
complete -c aioc-recv -o envelope -d 'print whole messages, each as one JSON object on a line'
complete -c aioc-recv -o format -x -d 'print by a Go text/template over the envelope'
complete -c aioc-recv -o h -d 'print this'
complete -c aioc-recv -o idle -x -d 'end when nothing has arrived for so long, with status 124'
complete -c aioc-recv -o j -x -d 'run so many commands at once (default 1)'
complete -c aioc-recv -o limit -x -d 'a command that takes longer is ended and has failed'
complete -c aioc-recv -o n -x -d 'end after COUNT messages'
complete -c aioc-recv -o raw -d 'print the bytes as they came (default: each message as one JSON line)'
complete -c aioc-recv -o timeout -x -d 'end after so long in all, with status 124'
complete -c aioc-recv -o type -x -d 'message type, repeatable or with commas (default: all of recv_message_types)'
complete -c aioc-recv -o version -d 'print name, version and Go version'
