"""Package `busrt-async` (asyncio) against the broker on a UNIX socket."""
# The scripts' own folder comes first on the module path, where this file has the name of the package.
import sys

sys.path.append(sys.path.pop(0))

import asyncio
import importlib

import checks
from checks import OK, WAIT, check

client_module = importlib.import_module('busrt_async.client')
rpc_module = importlib.import_module('busrt_async.rpc')


class Peer:
    """One client; what arrives waits in `frames`, RPC aside."""

    def __init__(self, path, name):
        self.client = client_module.Client(path, name)
        self.client.timeout = WAIT
        self.frames = asyncio.Queue()
        self.name = name
        self.client.on_frame = self.frames.put

    async def connect(self, rpc=False):
        if rpc:
            self.rpc = rpc_module.Rpc(self.client)
            self.rpc.on_frame = self.frames.put
        await self.client.connect()
        return self

    async def op(self, kind, target, payload, header=None, qos=1):
        """Any operation with a target in front of its payload; returns the result code."""
        frame = client_module.Frame(payload, tp=kind, qos=qos)
        frame.header = header
        return await (await self.client.send(target, frame)).wait_completed(timeout=WAIT)

    async def topics(self, topics, subscribe=True):
        await (self.client.subscribe if subscribe else self.client.unsubscribe)(topics)
        # These two carry no QoS; what follows on the same connection is handled after them.
        await self.echo()

    async def echo(self):
        """A message to itself: comes back behind everything sent before."""
        code = await self.op(checks.OP_MESSAGE, self.name, b'echo')
        got = await self.next()
        if (code, got) != (OK, (checks.OP_MESSAGE, self.name, None, b'echo')):
            checks.fail('echo of %s: %r %r' % (self.name, code, got))

    async def call(self, target, method, params=b''):
        event = await self.rpc.call(target, rpc_module.Request(method, params))
        return bytes((await event.wait_completed(timeout=WAIT)).get_payload())

    async def call_error(self, target, method, params=b''):
        try:
            payload = await self.call(target, method, params)
        except rpc_module.RpcException as error:
            return error.rpc_error_code, error.rpc_error_payload
        return 'no error', payload

    async def next(self):
        """Kind, sender, topic and payload of the next frame."""
        try:
            frame = await asyncio.wait_for(self.frames.get(), WAIT)
        except asyncio.TimeoutError:
            return 'nothing came'
        return frame.type, frame.sender, frame.topic, bytes(frame.payload)


async def run(args):
    a, b, c, d = (Peer(args.socket, 'py.async.' + name) for name in 'abcd')
    for peer in (a, b):
        await peer.connect()
    for peer in (c, d):
        await peer.connect(rpc=True)
    await messages(a, b)
    await publications(a, b)
    if not args.elbus_server:
        await exclusions(a, b)
        await publish_for(a, b)
    await calls(c, d)
    await calls(d, c)
    await broker_calls(c, [peer.name for peer in (a, b, c, d)])
    for peer in (a, b, c, d):
        await peer.client.disconnect()
    checks.done()


async def messages(a, b):
    check('message', await a.op(checks.OP_MESSAGE, b.name, b'one\0two'), OK)
    check('message arrives', await b.next(), (checks.OP_MESSAGE, a.name, None, b'one\0two'))
    large = bytes(range(256)) * 4096
    check('message of 1 MiB', await b.op(checks.OP_MESSAGE, a.name, large), OK)
    check('message of 1 MiB arrives', await a.next() == (checks.OP_MESSAGE, b.name, None, large), True)
    check('message to nobody', await a.op(checks.OP_MESSAGE, 'py.async.nobody', b'x'), checks.NOT_REGISTERED)
    check('broadcast', await a.op(checks.OP_BROADCAST, 'py.async.*', b'all'), OK)
    for peer in (a, b):
        check('broadcast reaches %s' % peer.name, await peer.next(),
              (checks.OP_BROADCAST, a.name, None, b'all'))


async def publications(a, b):
    await b.topics(['py/+', 'py/deep/#'])
    for topic in ('py/x', 'py/deep/er/x'):
        check('publish %s' % topic, await a.op(checks.OP_PUBLISH, topic, b'news'), OK)
        check('publish %s arrives' % topic, await b.next(), (checks.OP_PUBLISH, a.name, topic, b'news'))
    await b.topics('py/+', subscribe=False)
    check('publish after unsubscribe', await a.op(checks.OP_PUBLISH, 'py/x', b'no'), OK)
    await b.echo()
    print('ok unsubscribe ends the publications')


async def exclusions(a, b):
    """The package knows no such operations, but carries them: the first mask as target, the others as payload."""
    await b.topics('ex/#')
    check('exclude', await b.op(checks.OP_EXCLUDE, 'ex/no', b'ex/none/#'), OK)
    for topic in ('ex/no', 'ex/none/x', 'ex/yes'):
        check('publish %s' % topic, await a.op(checks.OP_PUBLISH, topic, b'x'), OK)
    check('exclusions are left out', (await b.next())[2], 'ex/yes')
    check('unexclude', await b.op(checks.OP_UNEXCLUDE, 'ex/no', b'ex/none/#'), OK)
    check('publish ex/no again', await a.op(checks.OP_PUBLISH, 'ex/no', b'x'), OK)
    check('unexcluded topic arrives', (await b.next())[2], 'ex/no')


async def publish_for(a, b):
    for peer in (a, b):
        await peer.topics('for/#')
    code = await a.op(checks.OP_PUBLISH_FOR, 'for/x', b'you', header=b.name.encode() + b'\0')
    check('publish-for', code, OK)
    check('publish-for arrives', await b.next(), (checks.OP_PUBLISH, a.name, 'for/x', b'you'))
    await a.echo()
    print('ok publish-for passes the others by')


async def calls(server, caller):
    """One client serves, the other calls."""
    noted = asyncio.Queue()

    async def on_call(event):
        if event.method == b'double':
            return event.get_payload() * 2
        if event.method == b'nothing':
            await noted.put(('call', event.call_id == 0, bytes(event.get_payload())))
            return None
        raise rpc_module.RpcException('no ' + event.method.decode(), checks.METHOD_NOT_FOUND)

    async def on_notification(event):
        await noted.put(('notification', bytes(event.get_payload())))

    async def next_noted():
        return await asyncio.wait_for(noted.get(), WAIT)

    server.rpc.on_call = on_call
    server.rpc.on_notification = on_notification
    where = '%s to %s' % (caller.name, server.name)
    check('call %s' % where, await caller.call(server.name, 'double', b'ab\0'), b'ab\0ab\0')
    check('empty result %s' % where, await caller.call(server.name, 'nothing'), b'')
    check('empty params arrive', await next_noted(), ('call', False, b''))
    check('error %s' % where, await caller.call_error(server.name, 'what'),
          (checks.METHOD_NOT_FOUND, b'no what'))
    check('callee missing', (await caller.call_error(server.name + '.none', 'x'))[0],
          checks.NOT_REGISTERED_RPC)
    sent = await caller.rpc.call0(server.name, rpc_module.Request('nothing', b'p'))
    check('call0 %s' % where, await sent.wait_completed(WAIT), OK)
    check('call0 arrives', await next_noted(), ('call', True, b'p'))
    sent = await caller.rpc.notify(server.name, rpc_module.Notification(b'hear'))
    check('notification %s' % where, await sent.wait_completed(WAIT), OK)
    check('notification arrives', await next_noted(), ('notification', b'hear'))
    many = await asyncio.gather(*(caller.call(server.name, 'double', b'%d' % n) for n in range(100)))
    check('100 calls at once %s' % where, many, [b'%d' % n * 2 for n in range(100)])


async def broker_calls(caller, names):
    results = {method: await caller.call('.broker', method) for method in checks.METHODS}
    results['benchmark.test'] = await caller.call('.broker', 'benchmark.test', b'any bytes')
    checks.check_broker(results, names)
    check('broker method unknown', await caller.call_error('.broker', 'none'), (checks.METHOD_NOT_FOUND, b''))
    check('broker params refused', await caller.call_error('.broker', 'test', b'\x81\xa1x\x01'),
          (checks.INVALID_PARAMS, b''))


if __name__ == '__main__':
    asyncio.run(run(checks.arguments(__doc__)))
