"""Drives the original's ConnectorAPI and ConnectorRemoteTool: api.py CONFIG.

CONFIG is the connector's own configuration file.  Standard input has one
operation on a line, an object with "op" and "id".  Each is answered by one
line {"event": "done", "id": ..., ...}, with "error" if it raised.  A message
that arrives is a line {"event": "received", "type": ..., "transport": ...,
"data": base64, "binary": base64 or null}.  Operations are carried out in
order, but nothing waits for a request's response or for a command's reply.
The end of standard input ends the program.

  listen   type, answer       receive messages of a type; with answer, send
                              each request its own data and binary back
  send     type, ...          send a message; the keys are those of message();
                              chunk: cut files into pieces of so many bytes
  request  type, timeout, ... send one and wait for its response
  burst    type, to, count, text
                              send count texts, text % number
  publish  type, ...          publish a message, with the keys of send
  forget                      close the kept connection to the connector
  call     name, args         call a method of ConnectorRemoteTool
  command  name, kwargs       send the connector any command
"""
import asyncio
import base64
import json
import os
import sys

import aioconnectors


def emit(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def b64(data):
    return None if data is None else base64.b64encode(data).decode()


def message(op):
    """The arguments of send_message for an operation.

    The data is one of json (a text, as Python's json reads it), text and
    data (base64); without any of them it is empty.
    """
    kwargs = {"message_type": op["type"], "data_is_json": "json" in op}
    if "json" in op:
        kwargs["data"] = json.loads(op["json"])
        if json.dumps(kwargs["data"]) != op["json"]:
            raise ValueError("json.dumps does not write %r" % op["json"])
    elif "text" in op:
        kwargs["data"] = op["text"]
    elif "data" in op:
        kwargs["data"] = base64.b64decode(op["data"])
    if "binary" in op:
        kwargs["binary"] = base64.b64decode(op["binary"])
    for key in ("request_id", "response_id", "tag"):
        if key in op:
            kwargs[key] = op[key]
    if op.get("to"):
        kwargs["destination_id"] = op["to"]
    if op.get("ack"):
        kwargs["wait_for_ack"] = True
    if "file" in op:
        kwargs["with_file"] = op["file"]
    return kwargs


class Driver:
    def __init__(self, config):
        with open(config) as f:
            directory = json.load(f)["connector_files_dirpath"]
        # The directories are in the file too, but the default ones would be
        # made and written to before it is read.
        where = {"config_file_path": config, "connector_files_dirpath": directory,
                 "default_logger_dirpath": directory}
        self.api = aioconnectors.ConnectorAPI(**where)
        self.tool = aioconnectors.ConnectorRemoteTool(**where)
        self.tasks = set()

    async def listen(self, op):
        async def received(logger, transport, data, binary):
            emit(event="received", type=op["type"], transport=transport,
                 data=b64(data), binary=b64(binary))
            if op.get("answer") and transport.get("await_response"):
                await self.api.send_message(
                    message_type=transport["message_type"], destination_id=transport["source_id"],
                    response_id=transport["request_id"], data=data, data_is_json=False, binary=binary)
        await self.api.start_waiting_for_messages(
            message_type=op["type"], message_received_cb=received, reuse_uds_path=True)
        return {}

    async def send(self, op):
        if "chunk" in op:
            self.api.max_size_chunk_upload = op["chunk"]
        return {"result": await self.api.send_message(**message(op))}

    async def request(self, op):
        result = await self.api.send_message_await_response(
            await_response_timeout=op["timeout"], **message(op))
        if not result:
            return {"result": False}
        transport, data, binary = result
        return {"result": True, "transport": transport, "data": b64(data), "binary": b64(binary)}

    async def burst(self, op):
        for number in range(op["count"]):
            sent = await self.api.send_message(
                message_type=op["type"], destination_id=op.get("to"),
                data=op["text"] % number, data_is_json=False)
            if not sent:
                return {"result": False, "number": number}
        return {"result": True}

    async def publish(self, op):
        if "chunk" in op:
            self.api.max_size_chunk_upload = op["chunk"]
        return {"result": await self.api.publish_message(**message(op))}

    async def forget(self, op):
        if self.api.reader_writer_uds_path_send:
            self.api.reader_writer_uds_path_send[1].close()
            self.api.reader_writer_uds_path_send = None
        return {}

    async def call(self, op):
        reply = await getattr(self.tool, op["name"])(*(op.get("args") or []))
        return {"reply": reply.decode()}

    async def command(self, op):
        reply = await self.tool.send_command(cmd=op["name"], kwargs=op.get("kwargs"))
        return {"reply": reply.decode()}

    async def perform(self, op):
        try:
            done = await getattr(self, op["op"])(op)
        except Exception as exc:
            done = {"error": "%s: %s" % (type(exc).__name__, exc)}
        emit(event="done", id=op["id"], **done)

    async def run(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 26)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while True:
            line = await reader.readline()
            if not line:
                return
            op = json.loads(line.decode())
            if op["op"] in ("request", "call", "command"):
                task = loop.create_task(self.perform(op))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            else:
                await self.perform(op)


async def main(config):
    driver = Driver(config)
    emit(event="ready")
    await driver.run()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
