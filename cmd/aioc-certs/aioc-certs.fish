# Completion of aioc-certs for fish.
# Made by make completions; changes are lost.
complete -c aioc-certs -f
complete -c aioc-certs -o days -x -d 'check: complain about certificates that end within N days (default 30)'
complete -c aioc-certs -o dir -x -a '(__fish_complete_directories)' -d 'directory of sockets and state (default $AIOC_DIR)'
complete -c aioc-certs -o h -d 'print this'
complete -c aioc-certs -o json -d 'list, show, fingerprint: print JSON'
complete -c aioc-certs -o v -d 'create: name the files that were made'
complete -c aioc-certs -o version -d 'print name, version and Go version'
complete -c aioc-certs -n __fish_use_subcommand -a create -d ''
complete -c aioc-certs -n __fish_use_subcommand -a list -d ''
complete -c aioc-certs -n __fish_use_subcommand -a show -d ''
complete -c aioc-certs -n __fish_use_subcommand -a fingerprint -d ''
complete -c aioc-certs -n __fish_use_subcommand -a check -d ''
