"""A client of one of the reference project's Python packages, led by lines of JSON on standard input.

usage: peer.py busrt|busrt_async|elbus SOCKET NAME messages|rpc

With `rpc` it takes part in RPC; a message to it that is not RPC is an error to the packages then. Says by lines of JSON on standard output what came of each command, in their order, and in between what it received:

    {"did": COMMAND, ...}                                              see the commands below
    {"frame": KIND, "sender": NAME, "topic": TOPIC, "payload": HEX}    message, broadcast or publication
    {"call": METHOD, "sender": NAME, "params": HEX, "id": NUMBER}      answered by METHODS below
    {"notification": HEX, "sender": NAME}

Payloads, params and results are hexadecimal digits: no MessagePack is needed here.
"""
# The packages are looked for elsewhere: this file's folder has nothing they need.
import sys

sys.path.pop(0)

import asyncio
import importlib
import json
import os
import threading

WAIT = 10.0
"""Seconds anything expected may take."""
OP_PUBLISH = 0x01
METHOD_NOT_FOUND = -32601

turn = threading.Lock()


def say(**what):
    with turn:
        sys.stdout.write(json.dumps(what) + '\n')
        sys.stdout.flush()


def say_frame(frame):
    say(frame=frame.type, sender=frame.sender, topic=frame.topic, payload=bytes(frame.payload).hex())


def say_notification(event):
    say(notification=bytes(event.get_payload()).hex(), sender=event.frame.sender)


def answer(event, rpc_exception):
    method, params = event.method.decode(), bytes(event.get_payload())
    say(call=method, sender=event.frame.sender, params=params.hex(), id=event.call_id)
    if method == 'echo':
        return params
    if method == 'nothing':
        return None
    if method == 'fail':
        raise rpc_exception('on purpose', -5)
    if method == 'bug':
        raise ValueError('a bug')
    raise rpc_exception('no ' + method, METHOD_NOT_FOUND)


def said_error(error):
    data = error.rpc_error_payload
    return {'error': error.rpc_error_code, 'data': (data.encode() if isinstance(data, str) else bytes(data)).hex()}


class Threads:
    """Packages `busrt` and `elbus`."""

    def __init__(self, package, path, name, with_rpc):
        self.client_module = importlib.import_module(package + '.client')
        self.rpc_module = importlib.import_module(package + '.rpc')
        self.client = self.client_module.Client(path, name)
        self.client.timeout = WAIT
        self.client.on_frame = say_frame
        if with_rpc:
            self.rpc = self.rpc_module.Rpc(self.client)
            self.rpc.on_frame = say_frame
            self.rpc.on_notification = say_notification
            self.rpc.on_call = lambda event: answer(event, self.rpc_module.RpcException)
        self.client.connect()

    def send(self, kind, target, payload, qos=1, header=None):
        frame = self.client_module.Frame(payload, tp=kind, qos=qos)
        frame.header = header
        return self.client.send(target, frame).wait_completed(timeout=WAIT)

    def masks(self, do, masks):
        getattr(self.client, do)(masks)

    def call(self, target, method, params):
        event = self.rpc.call(target, self.rpc_module.Request(method, params))
        return event.wait_completed(timeout=WAIT).get_payload()

    def call0(self, target, method, params):
        return self.rpc.call0(target, self.rpc_module.Request(method, params)).wait_completed(timeout=WAIT)

    def notify(self, target, payload):
        return self.rpc.notify(target, self.rpc_module.Notification(payload)).wait_completed(timeout=WAIT)


class Asyncio:
    """Package `busrt_async`, its event loop on a thread of its own."""

    def __init__(self, package, path, name, with_rpc):
        self.client_module = importlib.import_module(package + '.client')
        self.rpc_module = importlib.import_module(package + '.rpc')
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.run(self.connect(path, name, with_rpc))

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT)

    async def connect(self, path, name, with_rpc):
        async def on_frame(frame):
            say_frame(frame)

        async def on_notification(event):
            say_notification(event)

        async def on_call(event):
            return answer(event, self.rpc_module.RpcException)

        self.client = self.client_module.Client(path, name)
        self.client.timeout = WAIT
        self.client.on_frame = on_frame
        if with_rpc:
            self.rpc = self.rpc_module.Rpc(self.client)
            self.rpc.on_frame, self.rpc.on_notification, self.rpc.on_call = on_frame, on_notification, on_call
        await self.client.connect()

    def send(self, kind, target, payload, qos=1, header=None):
        async def send():
            frame = self.client_module.Frame(payload, tp=kind, qos=qos)
            frame.header = header
            return await (await self.client.send(target, frame)).wait_completed(timeout=WAIT)
        return self.run(send())

    def masks(self, do, masks):
        async def send():
            await getattr(self.client, do)(masks)
        self.run(send())

    def call(self, target, method, params):
        async def call():
            event = await self.rpc.call(target, self.rpc_module.Request(method, params))
            return (await event.wait_completed(timeout=WAIT)).get_payload()
        return self.run(call())

    def call0(self, target, method, params):
        async def call():
            sent = await self.rpc.call0(target, self.rpc_module.Request(method, params))
            return await sent.wait_completed(timeout=WAIT)
        return self.run(call())

    def notify(self, target, payload):
        async def notify():
            sent = await self.rpc.notify(target, self.rpc_module.Notification(payload))
            return await sent.wait_completed(timeout=WAIT)
        return self.run(notify())


def carry_out(peer, do, command):
    """One command; returns what came of it."""
    for field in ('payload', 'params', 'header'):
        if field in command:
            command[field] = bytes.fromhex(command[field])
    if do == 'send':
        return {'code': peer.send(**command)}
    if do in ('subscribe', 'unsubscribe'):
        peer.masks(do, command['masks'])
        # These carry no QoS. What is acknowledged behind them says that they are in force.
        return {'code': peer.send(OP_PUBLISH, 'nobody/hears', b'')}
    if do in ('call0', 'notify'):
        return {'code': getattr(peer, do)(**command)}
    try:
        return {'result': bytes(peer.call(**command)).hex()}
    except peer.rpc_module.RpcException as error:
        return said_error(error)


def main():
    package, path, name, mode = sys.argv[1:]
    peer = (Asyncio if package == 'busrt_async' else Threads)(package, path, name, mode == 'rpc')
    say(did='connect')
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop('do')
        say(did=do, **carry_out(peer, do, command))
    # The threads of the packages would keep the process alive.
    os._exit(0)


if __name__ == '__main__':
    main()
