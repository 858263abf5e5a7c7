// ZeroMQ's own proxy between publishers and subscribers, which runs in a thread of the addon.
import { XPublisher, XSubscriber, Proxy as ZeroMqProxy } from 'zeromq'

// Without a bound, as it would drop what is above: the flow control of the measurement bounds what is on its way.
const unbounded = { sendHighWaterMark: 0, receiveHighWaterMark: 0, linger: 0 }

/** Publications go in at one address and come out at the other. */
export async function listen(publishers, subscribers) {
  const frontEnd = new XSubscriber(unbounded)
  const backEnd = new XPublisher(unbounded)
  await frontEnd.bind(publishers)
  await backEnd.bind(subscribers)
  new ZeroMqProxy(frontEnd, backEnd).run()
}
