"""Runs a program of the original: program.py SUBCOMMAND [ARGUMENT...].

As python -m aioconnectors, but its default directory is in the current one:
it would write to /var/tmp/aioconnectors before it reads a configuration.
"""
import os
import runpy

exists = os.path.exists
os.path.exists = lambda path: path != "/var/tmp" and exists(path)
os.environ["HOME"] = os.getcwd()
runpy.run_module("aioconnectors", run_name="__main__", alter_sys=True)
