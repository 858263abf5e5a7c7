"""A Python client for a tour: says what it receives, publishes a topic and calls a method of another client.

One line for each thing that happens, on standard output:

    connected as NAME
    subscribed to TOPIC
    published TOPIC: TEXT
    result of METHOD from NAME: TEXT      or  error CODE of METHOD from NAME: TEXT
    message from NAME: TEXT
    broadcast from NAME: TEXT
    publication from NAME, topic TOPIC: TEXT
    notification from NAME: TEXT
    call of METHOD from NAME: TEXT        answered with the params it came with

Bytes that are no printable UTF-8 are shown as hexadecimal digits behind 0x.
"""
import argparse
import os
import sys
import threading
import time

from busrt.client import OP_BROADCAST, OP_PUBLISH, Client, Frame
from busrt.rpc import Request, Rpc, RpcException

WAIT = 5.0
"""Seconds an answer may take."""


def say(*parts):
    sys.stdout.write(' '.join(parts) + '\n')
    sys.stdout.flush()


def text(data):
    data = bytes(data)
    try:
        shown = data.decode()
    except UnicodeDecodeError:
        return '0x' + data.hex()
    return shown if shown.isprintable() else '0x' + data.hex()


def on_frame(frame):
    if frame.type == OP_PUBLISH:
        say('publication from %s, topic %s: %s' % (frame.sender, frame.topic, text(frame.payload)))
    else:
        kind = 'broadcast' if frame.type == OP_BROADCAST else 'message'
        say('%s from %s: %s' % (kind, frame.sender, text(frame.payload)))


def on_call(event):
    say('call of %s from %s: %s' % (text(event.method), event.frame.sender, text(event.get_payload())))
    return event.get_payload()


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument('socket', help='UNIX socket of the broker')
    parser.add_argument('name', help='name to connect with')
    parser.add_argument('peer', help='client whose method is called')
    parser.add_argument('--subscribe', action='append', metavar='MASK', help='topic mask, may be repeated')
    parser.add_argument('--topic', help='topic to publish (default: tour/NAME)')
    parser.add_argument('--text', default='hello from Python', help='what is published')
    parser.add_argument('--method', default='hello', help='method to call')
    parser.add_argument('--params', default='', help='params of the call, as hexadecimal digits')
    parser.add_argument('--stay', type=float, default=1.0, help='seconds to go on receiving after the call')
    args = parser.parse_args()

    client = Client(args.socket, args.name)
    client.timeout = WAIT
    rpc = Rpc(client)
    # The package handles each frame on a thread of its own; lines are to come one at a time.
    turn = threading.Lock()

    def one_by_one(handle):
        def handler(event):
            with turn:
                return handle(event)
        return handler

    rpc.on_frame = one_by_one(on_frame)
    rpc.on_call = one_by_one(on_call)
    rpc.on_notification = one_by_one(
        lambda event: say('notification from %s: %s' % (event.frame.sender, text(event.get_payload()))))
    client.connect()
    say('connected as %s' % args.name)
    for mask in args.subscribe or []:
        client.subscribe(mask)
        say('subscribed to %s' % mask)
    topic = args.topic or 'tour/' + args.name
    frame = Frame(args.text, tp=OP_PUBLISH, qos=1)
    code = client.send(topic, frame).wait_completed(timeout=WAIT)
    say('published %s: %s' % (topic, args.text) if code == 1 else 'publishing %s failed: %#04x' % (topic, code))
    good = code == 1
    try:
        event = rpc.call(args.peer, Request(args.method, bytes.fromhex(args.params)))
        result = text(event.wait_completed(timeout=WAIT).get_payload())
        say('result of %s from %s: %s' % (args.method, args.peer, result))
    except RpcException as error:
        good = False
        data = error.rpc_error_payload
        data = text(data.encode() if isinstance(data, str) else data)
        say('error %d of %s from %s: %s' % (error.rpc_error_code, args.method, args.peer, data))
    except TimeoutError:
        good = False
        say('no result of %s from %s in %g s' % (args.method, args.peer, WAIT))
    time.sleep(args.stay)
    client.disconnect()
    sys.stdout.flush()
    os._exit(0 if good else 1)


if __name__ == '__main__':
    main()
