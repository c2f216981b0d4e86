"""The scripts that read, set and undo knobs: constant texts, run after `ask.HEAD`; names and values are their arguments.

One command each, because a call of `settings` or `dumpsys` takes a phone some 50 ms and a round trip as long again.
"""

from __future__ import annotations

# a call that hangs is ended; what it prints is bounded
VALUES = """limited() { timeout -s KILL 6 "$@" 2>&1 </dev/null; }
get() {
  case $1 in
    deviceidle) limited dumpsys -t 5 deviceidle enabled ;;
    fixed_performance) echo false ;;
    *) limited settings get global "$1" ;;
  esac | head -c 200
}
put() {
  case $1 in
    deviceidle) case $2 in 0) limited dumpsys -t 5 deviceidle disable ;; 1) limited dumpsys -t 5 deviceidle enable ;; esac ;;
    fixed_performance) limited cmd power set-fixed-performance-mode-enabled "$2" ;;
    *) case $2 in null) limited settings delete global "$1" ;; *) limited settings put global "$1" "$2" ;; esac ;;
  esac
  echo "status $?"
}
"""

# JOURNAL KEY...
READ = (
    VALUES
    + """[ ! -e "$1" ] || { say journal; head -c 8193 "$1" 2>/dev/null; }
shift
say boot_id
read -r l </proc/sys/kernel/random/boot_id && echo "$l"
for key; do say "$key"; get "$key"; done
"""
)

# (KEY NEW)...
SET = (
    VALUES
    + """limited input keyevent KEYCODE_WAKEUP >/dev/null
while [ $# -gt 1 ]; do
  say "$1 said"; put "$1" "$2" | tail -c 400
  say "$1"; get "$1"
  shift 2
done
"""
)

# JOURNAL (KEY OLD NEW)...: a value that is not ours any more is left alone; the journal goes when nothing is left to undo.
# Nothing, or words, is what a service says that cannot be asked: then nothing is known, and the journal stays.
UNDO = (
    VALUES
    + """journal=$1 failed=; shift
while [ $# -gt 2 ]; do
  say "$1"
  now=$(get "$1")
  if [ "$1" = fixed_performance ]; then
    case $(put "$1" "$2" | tail -c 20) in *"status 124"|*"status 137") failed=1 ;; *) echo undone ;; esac
  elif [ "$now" = "$3" ]; then
    put "$1" "$2" >/dev/null
    if [ "$(get "$1")" = "$2" ]; then echo undone; else failed=1; fi
  else
    case $now in ""|*" "*) failed=1 ;; *) echo left ;; esac
  fi
  shift 3
done
[ "$failed" ] || { rm -f -- "$journal" && say removed; }
"""
)
