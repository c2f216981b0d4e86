"""Phones over ADB: directly (adb-shell, TCP or USB) and through an adb server (adbutils). Both are one `AdbTransport`.

stream.py     Link and Stream: what the two ways have in common
find.py       which phones are there
wire.py       the library's TCP transport, as a medium for whole packets
direct.py     Link over the library's own connection, with what it gets wrong put right; usb.py the same over USB
server.py     Link through an adb server, which may run on another machine
shell_v2.py   the packets of a command: output, errors and the exit status apart
command.py    one command on a phone, from its start to its last process
sync.py       the packets of a file, both ways
verify.py     the same file on both sides
files.py      one file, sent or received and verified
archive.py    many files as one archive
pool.py       the links to one phone, for all its threads
phone.py      AdbTransport, from the above
describe.py   what a phone says of itself
keys.py       the RSA key, where adb keeps it
errors.py     foreign exceptions as ours

Nothing here imports adb-shell or adbutils before a phone is asked for.
"""
