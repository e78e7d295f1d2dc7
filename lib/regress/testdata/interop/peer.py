"""Runs one connector of the original, for the tests of the family: peer.py CONFIG.

CONFIG is the connector's configuration file.  One line of JSON is printed
when the connector has started.  The connector lives until standard input
ends, so that it never outlives the test that started it.
"""
import asyncio
import json
import os
import sys

import aioconnectors


async def main(config):
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # Reading standard input without a thread: its end is the only news.
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or ended.set())
    with open(config) as f:
        directory = json.load(f)["connector_files_dirpath"]
    # The directories are in the file too, but the default ones would be made
    # and written to before it is read.
    manager = aioconnectors.ConnectorManager(
        config_file_path=config, connector_files_dirpath=directory, default_logger_dirpath=directory)
    await manager.start_connector()
    print(json.dumps({"event": "started", "source_id": manager.source_id}), flush=True)
    await ended.wait()
    # Nothing of this connector is kept: its directory is temporary.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
