#!/bin/sh
# Runs in mount and process namespaces of its own, as their first process: gives the phone its /proc and /dev and becomes adbd.
# usage: start.sh ROOT ADBD LISTENING_FD [OPTIONS_OF_A_TMPFS_AT_/data]
set -eu
root=$1 adbd=$2 fd=$3 data=${4:-}
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
(cd "$root/state/proc" && find . -type f) | while read -r file; do mount --bind "$root/state/proc/$file" "$root/proc/$file"; done
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
while read -r name minor; do mknod -m 666 "$root/dev/$name" c 1 "$minor"; done <<EOF
null 3
zero 5
full 7
random 8
urandom 9
EOF
mknod -m 666 "$root/dev/tty" c 5 0
if [ -n "$data" ]; then
  mount -t tmpfs -o "mode=0771,$data" tmpfs "$root/data"
  mkdir -p "$root/data/local/tmp"
  chown -R 2000:2000 "$root/data/local"
  chmod 0771 "$root/data/local/tmp"
fi
# not exec: this shell is the first process of the phone and takes away the dead ones that nobody waits for, as init does
env -i --default-signal=INT,QUIT PHONE_ROOT="$root" PHONE_LISTEN="acceptfd:$fd" ANDROID_ROOT=/system ANDROID_DATA=/data \
  PATH=/product/bin:/system/bin:/system/xbin:/vendor/bin ANDROID_STORAGE=/storage EXTERNAL_STORAGE=/sdcard TMPDIR=/data/local/tmp \
  "$adbd" </dev/null &
wait $!
