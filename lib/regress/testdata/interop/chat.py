"""The chat of the original, with a directory of its own.

usage: chat.py DIR ARGUMENTS-OF-CHAT
"""

import runpy
import sys

import aioconnectors

directory = sys.argv[1]
# The chat always uses /var/tmp/aioconnectors, and asks whether it may be emptied.
aioconnectors.get_tmp_dir = lambda: directory
sys.argv = ["aioconnectors", "chat", "--nowrap"] + sys.argv[2:]
runpy.run_module("aioconnectors", run_name="__main__")
