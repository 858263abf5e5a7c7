"""What the scenarios share: the command line, one line per check, and as much MessagePack as `.broker` speaks."""
import argparse
import os
import struct
import sys

WAIT = 5.0
"""Seconds anything expected may take."""

OP_PUBLISH, OP_EXCLUDE, OP_UNEXCLUDE, OP_PUBLISH_FOR = 0x01, 0x04, 0x05, 0x06
OP_MESSAGE, OP_BROADCAST = 0x12, 0x13
OK, NOT_REGISTERED = 0x01, 0x71
METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602
NOT_REGISTERED_RPC = -32000 - NOT_REGISTERED

METHODS = ['test', 'info', 'stats', 'client.list']
"""Methods of `.broker` without params."""


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('socket', help='UNIX socket of the broker')
    parser.add_argument('--elbus-server', action='store_true',
                        help='the broker is elbusd 0.2: no exclude, unexclude, publish-for')
    return parser.parse_args()


def check(name, got, expected):
    """Prints `ok NAME`, or ends the process with 1. A client's threads would keep it alive, hence the hard exit."""
    if got != expected:
        fail('%s: expected %r, got %r' % (name, expected, got))
    print('ok %s' % name, flush=True)


def fail(text):
    print('FAILED %s' % text, flush=True)
    sys.stderr.flush()
    os._exit(1)


def done():
    """Ends the process as well if a thread of a client library is still busy."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def unpack(data):
    """The one MessagePack value in `data`."""
    value, end = _value(bytes(data), 0)
    if end != len(data):
        raise ValueError('%d bytes behind the value' % (len(data) - end))
    return value


_NUMBERS = {0xCA: '>f', 0xCB: '>d', 0xCC: '>B', 0xCD: '>H', 0xCE: '>I', 0xCF: '>Q',
            0xD0: '>b', 0xD1: '>h', 0xD2: '>i', 0xD3: '>q'}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {0xD9: ('>B', str), 0xDA: ('>H', str), 0xDB: ('>I', str), 0xDC: ('>H', list), 0xDD: ('>I', list),
            0xDE: ('>H', dict), 0xDF: ('>I', dict), 0xC4: ('>B', bytes), 0xC5: ('>H', bytes)}


def _value(data, at):
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind >= 0xE0:
        return kind - 0x100, at
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind in _NUMBERS:
        number, = struct.unpack_from(_NUMBERS[kind], data, at)
        return number, at + struct.calcsize(_NUMBERS[kind])
    if kind < 0x90:
        return _items(data, at, dict, kind & 0x0F)
    if kind < 0xA0:
        return _items(data, at, list, kind & 0x0F)
    if kind < 0xC0:
        return _items(data, at, str, kind & 0x1F)
    if kind not in _LENGTHS:
        raise ValueError('no such MessagePack type: %#04x' % kind)
    form, what = _LENGTHS[kind]
    count, = struct.unpack_from(form, data, at)
    return _items(data, at + struct.calcsize(form), what, count)


def _items(data, at, what, count):
    if what in (str, bytes):
        part = data[at:at + count]
        if len(part) != count:
            raise ValueError('cut short')
        return (part.decode() if what is str else part), at + count
    values = []
    for _ in range(count * (2 if what is dict else 1)):
        value, at = _value(data, at)
        values.append(value)
    return (dict(zip(values[::2], values[1::2])) if what is dict else values), at


def check_broker(results, names):
    """Checks what `.broker` answered: results by method. `names` must all be listed."""
    check('broker.test', unpack(results['test']), {'ok': True})
    check('broker.info', list(unpack(results['info'])), ['author', 'version'])
    stats = unpack(results['stats'])
    check('broker.stats', list(stats), ['uptime', 'r_frames', 'r_bytes', 'w_frames', 'w_bytes'])
    check('broker.stats counts', stats['r_frames'] > 0 and stats['r_bytes'] > stats['r_frames'], True)
    clients = unpack(results['client.list'])['clients']
    check('broker.client.list keys', list(clients[0]),
          ['name', 'kind', 'source', 'port', 'r_frames', 'r_bytes', 'w_frames', 'w_bytes', 'queue', 'instances'])
    listed = [client['name'] for client in clients]
    check('broker.client.list sorted', listed, sorted(listed))
    check('broker.client.list names', [name for name in ['.broker'] + names if name not in listed], [])
    kinds = {client['kind'] for client in clients if client['name'] in names}
    check('broker.client.list kinds', kinds, {'local_ipc'})
    check('broker.benchmark.test', bytes(results['benchmark.test']), b'any bytes')
