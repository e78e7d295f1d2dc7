"""One process of a line of the Python original, for measuring.

original.py connector CONFIG         a ConnectorManager; says "ready" when it runs, and, as a
                                     client, when its server has accepted it
original.py receive CONFIG COUNT     a ConnectorAPI that counts; prints messages and bytes
original.py send CONFIG FILE         a ConnectorAPI that sends the NUL-ended records of FILE;
                                     says "ready" and begins at a line on its standard input
"""

import asyncio
import sys

import aioconnectors


def say(*words):
    print(*words, flush=True)


async def connector(config):
    manager = aioconnectors.ConnectorManager(config_file_path=config)
    await manager.start_connector()
    if not manager.is_server:
        while not manager.connector.show_connected_peers(dump_result=False):
            await asyncio.sleep(0.01)
    say("ready")
    await asyncio.Event().wait()


async def receive(config, count):
    api = aioconnectors.ConnectorAPI(config_file_path=config)
    done = asyncio.Event()
    got = [0, 0]

    async def arrived(logger, transport, data, binary):
        got[0] += 1
        got[1] += len(data)
        if got[0] >= count:
            done.set()

    await api.start_waiting_for_messages(message_type="any", message_received_cb=arrived)
    say("ready")
    await done.wait()
    say(*got)
    api.stop_waiting_for_messages(message_type="any")


async def send(config, path):
    api = aioconnectors.ConnectorAPI(config_file_path=config)
    with open(path, "rb") as f:
        records = f.read().split(b"\0")[:-1]
    say("ready")
    sys.stdin.readline()
    for record in records:
        if not await api.send_message(message_type="any", data=record, data_is_json=False):
            sys.exit("the connector did not take a message")


def main():
    mode, config = sys.argv[1], sys.argv[2]
    if mode == "connector":
        work = connector(config)
    elif mode == "receive":
        work = receive(config, int(sys.argv[3]))
    elif mode == "send":
        work = send(config, sys.argv[3])
    else:
        sys.exit("unknown mode " + mode)
    # ConnectorAPI makes asyncio objects before its loop runs, hence no asyncio.run on old Pythons.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(work)


if __name__ == "__main__":
    main()
