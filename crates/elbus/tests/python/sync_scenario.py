"""The scenario for the two packages with threads, `busrt` and `elbus`, which have the same interface."""
import importlib
import queue

import checks
from checks import OK, WAIT, check


class Peer:
    """One client; what arrives waits in `frames`, RPC aside."""

    def __init__(self, package, path, name, rpc=False):
        self.client_module = importlib.import_module(package + '.client')
        self.rpc_module = importlib.import_module(package + '.rpc')
        self.client = self.client_module.Client(path, name)
        self.client.timeout = WAIT
        self.frames = queue.Queue()
        self.name = name
        self.client.on_frame = self.frames.put
        if rpc:
            self.rpc = self.rpc_module.Rpc(self.client)
            self.rpc.on_frame = self.frames.put
        self.client.connect()

    def op(self, kind, target, payload, header=None, qos=1):
        """Any operation with a target in front of its payload; returns the result code."""
        frame = self.client_module.Frame(payload, tp=kind, qos=qos)
        frame.header = header
        return self.client.send(target, frame).wait_completed(timeout=WAIT)

    def topics(self, topics, subscribe=True):
        send = self.client.subscribe if subscribe else self.client.unsubscribe
        send(topics)
        # These two carry no QoS; what follows on the same connection is handled after them.
        check_echo(self)

    def call(self, target, method, params=b''):
        request = self.rpc_module.Request(method, params)
        return self.rpc.call(target, request).wait_completed(timeout=WAIT).get_payload()

    def call_error(self, target, method, params=b''):
        try:
            payload = self.call(target, method, params)
        except self.rpc_module.RpcException as error:
            return error.rpc_error_code, error.rpc_error_payload
        return 'no error', payload

    def next(self):
        """Kind, sender, topic and payload of the next frame."""
        try:
            frame = self.frames.get(timeout=WAIT)
        except queue.Empty:
            return 'nothing came'
        return frame.type, frame.sender, frame.topic, bytes(frame.payload)


def check_echo(peer):
    """A message to itself: comes back behind everything sent before."""
    code = peer.op(checks.OP_MESSAGE, peer.name, b'echo')
    got = peer.next()
    if (code, got) != (OK, (checks.OP_MESSAGE, peer.name, None, b'echo')):
        checks.fail('echo of %s: %r %r' % (peer.name, code, got))


def run(package):
    args = checks.arguments(__doc__)
    prefix = 'py.%s.' % package
    a, b = (Peer(package, args.socket, prefix + name) for name in 'ab')
    messages(a, b, prefix)
    publications(a, b)
    if not args.elbus_server:
        exclusions(a, b)
        publish_for(a, b)
    c, d = (Peer(package, args.socket, prefix + name, rpc=True) for name in 'cd')
    calls(c, d)
    calls(d, c)
    broker_calls(c, [peer.name for peer in (a, b, c, d)])
    for peer in (a, b, c, d):
        peer.client.disconnect()
    checks.done()


def messages(a, b, prefix):
    check('message', a.op(checks.OP_MESSAGE, b.name, b'one\0two'), OK)
    check('message arrives', b.next(), (checks.OP_MESSAGE, a.name, None, b'one\0two'))
    check('message without acknowledgement', a.op(checks.OP_MESSAGE, b.name, 'text', qos=0), OK)
    check('message without acknowledgement arrives', b.next(), (checks.OP_MESSAGE, a.name, None, b'text'))
    large = bytes(range(256)) * 4096
    check('message of 1 MiB', b.op(checks.OP_MESSAGE, a.name, large), OK)
    check('message of 1 MiB arrives', a.next() == (checks.OP_MESSAGE, b.name, None, large), True)
    check('message to nobody', a.op(checks.OP_MESSAGE, prefix + 'nobody', b'x'), checks.NOT_REGISTERED)
    check('broadcast', a.op(checks.OP_BROADCAST, prefix + '?', b'all'), OK)
    for peer in (a, b):
        check('broadcast reaches %s' % peer.name, peer.next(), (checks.OP_BROADCAST, a.name, None, b'all'))


def publications(a, b):
    b.topics(['py/+', 'py/deep/#'])
    for topic in ('py/x', 'py/deep/er/x'):
        check('publish %s' % topic, a.op(checks.OP_PUBLISH, topic, b'news'), OK)
        check('publish %s arrives' % topic, b.next(), (checks.OP_PUBLISH, a.name, topic, b'news'))
    check('publish elsewhere', a.op(checks.OP_PUBLISH, 'py/deep', b'one level'), OK)
    check('publish elsewhere arrives by py/+', b.next()[2], 'py/deep')
    check('publish unheard', a.op(checks.OP_PUBLISH, 'px/x', b'no'), OK)
    check_echo(b)
    b.topics('py/+', subscribe=False)
    check('publish after unsubscribe', a.op(checks.OP_PUBLISH, 'py/x', b'no'), OK)
    check_echo(b)
    print('ok unsubscribe ends the publications')


def exclusions(a, b):
    """The packages know no such operations, but carry them: the first mask as target, the others as payload."""
    b.topics('ex/#')
    check('exclude', b.op(checks.OP_EXCLUDE, 'ex/no', b'ex/none/#'), OK)
    for topic in ('ex/no', 'ex/none/x', 'ex/yes'):
        check('publish %s' % topic, a.op(checks.OP_PUBLISH, topic, b'x'), OK)
    check('exclusions are left out', b.next()[2], 'ex/yes')
    check('unexclude', b.op(checks.OP_UNEXCLUDE, 'ex/no', b'ex/none/#'), OK)
    check('publish ex/no again', a.op(checks.OP_PUBLISH, 'ex/no', b'x'), OK)
    check('unexcluded topic arrives', b.next()[2], 'ex/no')


def publish_for(a, b):
    for peer in (a, b):
        peer.topics('for/#')
    check('publish-for', a.op(checks.OP_PUBLISH_FOR, 'for/x', b'you', header=b.name.encode() + b'\0'), OK)
    check('publish-for arrives', b.next(), (checks.OP_PUBLISH, a.name, 'for/x', b'you'))
    check_echo(a)
    print('ok publish-for passes the others by')


def calls(server, caller):
    """One client serves, the other calls."""
    noted = queue.Queue()

    def on_call(event):
        if event.method == b'double':
            return event.get_payload() * 2
        if event.method == b'nothing':
            noted.put(('call', event.call_id == 0, bytes(event.get_payload())))
            return None
        raise server.rpc_module.RpcException('no ' + event.method.decode(), checks.METHOD_NOT_FOUND)

    server.rpc.on_call = on_call
    server.rpc.on_notification = lambda event: noted.put(('notification', bytes(event.get_payload())))
    where = '%s to %s' % (caller.name, server.name)
    check('call %s' % where, bytes(caller.call(server.name, 'double', b'ab\0')), b'ab\0ab\0')
    check('empty result %s' % where, bytes(caller.call(server.name, 'nothing')), b'')
    check('empty params arrive', noted.get(timeout=WAIT), ('call', False, b''))
    check('error %s' % where, caller.call_error(server.name, 'what'), (checks.METHOD_NOT_FOUND, b'no what'))
    check('callee missing', caller.call_error(server.name + '.none', 'x')[0], checks.NOT_REGISTERED_RPC)
    request = caller.rpc_module.Request('nothing', b'p')
    check('call0 %s' % where, caller.rpc.call0(server.name, request).wait_completed(WAIT), OK)
    check('call0 arrives', noted.get(timeout=WAIT), ('call', True, b'p'))
    notification = caller.rpc_module.Notification(b'hear')
    check('notification %s' % where, caller.rpc.notify(server.name, notification).wait_completed(WAIT), OK)
    check('notification arrives', noted.get(timeout=WAIT), ('notification', b'hear'))


def broker_calls(caller, names):
    results = {method: caller.call('.broker', method) for method in checks.METHODS}
    results['benchmark.test'] = caller.call('.broker', 'benchmark.test', b'any bytes')
    checks.check_broker(results, names)
    check('broker method unknown', caller.call_error('.broker', 'none'), (checks.METHOD_NOT_FOUND, b''))
    check('broker params refused', caller.call_error('.broker', 'test', b'\x81\xa1x\x01'),
          (checks.INVALID_PARAMS, b''))
