// The rows of the goals: what a complete run has to show. The goals themselves stand beside the loads that measure
// them, in workloads/ and wire.mjs; here is only what each row is about, so that one that was not measured is missed.

/** What each row is about, by part and number. */
export const rows = {
  wire: {
    S1: 'broker CPU per million deliveries',
    S2: 'deliveries per second',
    S3: 'CPU beside a relay that only moves the same bytes',
    S4: '64 KiB payloads',
    S5: 'round trip, one in flight',
    S6: 'acknowledged messages',
    S7: 'publishing beside many wildcard subscriptions of others',
    S8: 'calls of .broker',
    S9: 'memory and CPU of idle clients',
    S10: 'growth: receivers, senders, payload',
  },
  node: {
    N1: 'one way, in process',
    N2: 'call, in process',
    N3: 'one client over a socket',
    N4: 'publications between processes',
    N5: 'calls between processes',
    N6: 'start to first message',
    N7: 'memory and pauses over ten million messages',
  },
}

/** Headings of the parts. */
export const parts = { wire: 'Over the wire', node: 'From Node' }
