#!/bin/sh
# A phone that ends with the process that started it: this waits on its standard input, which closes when that process dies
# or closes it; then every process of the phone is killed and its folder removed (kept if the word "keep" was written first).
# usage: launch.sh ROOT ADBD LISTENING_FD [OPTIONS_OF_A_TMPFS_AT_/data]
here=$(dirname "$0")
unshare --mount --pid --fork --kill-child=KILL --propagation private sh "$here/start.sh" "$@" </dev/null &
namespace=$!
read -r word
# the first process of the phone, not unshare: the kernel ends the others with it before unshare sees it dead, so nothing is left after wait
init=
read -r init _ <"/proc/$namespace/task/$namespace/children"
kill -KILL "${init:-$namespace}"
wait $namespace
[ "$word" = keep ] || rm -rf "$1"
