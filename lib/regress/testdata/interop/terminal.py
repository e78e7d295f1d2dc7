"""Run a program on a terminal, for a test that has only pipes.

usage: terminal.py PROGRAM ARGUMENTS
"""

import os
import pty
import sys

status = pty.spawn(sys.argv[1:], stdin_read=lambda fd: os.read(fd, 1024).replace(b"\n", b"\r"))
sys.exit(os.waitstatus_to_exitcode(status))
