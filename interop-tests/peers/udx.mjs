// A UDX endpoint: udx-native on loopback, steered by the test.
//
// Usage: node udx.mjs TREE; how it is steered: conversation.mjs.

import { createHash } from 'node:crypto'

import { load, serve, tell } from './conversation.mjs'

const UDX = load('udx-native')

const udx = new UDX()
const sockets = []
const streams = new Map()

serve({
  /** Binds one more socket on loopback. Datagrams that are no packets of a stream become events. */
  bind () {
    const socket = udx.createSocket()
    socket.bind(0, '127.0.0.1')
    socket.on('message', (data, from) => tell({ event: 'datagram', text: data.toString(), port: from.port }))
    sockets.push(socket)
    return { socket: sockets.length - 1, port: socket.address().port }
  },

  /** Makes stream `stream` and connects it; without a port it takes whoever sends first. */
  connect ({ stream: id, remote, port, socket = 0 }) {
    const stream = udx.createStream(id, {
      firewall (from, fromPort, host) {
        if (!stream.connected) stream.connect(from, remote, fromPort, host)
        return false
      }
    })
    streams.set(id, stream)
    stream.on('message', (data) => tell({ event: 'message', stream: id, text: data.toString() }))
    stream.on('error', (err) => tell({ event: 'failed', stream: id, code: err.code }))
    stream.on('close', () => tell({ event: 'closed', stream: id }))
    if (port) stream.connect(sockets[socket], remote, port, '127.0.0.1')
  },

  /** Writes `bytes` bytes of a pattern, in writes of `chunk`, waits for room where there is none, and answers with their hash. */
  async write ({ stream: id, bytes, seed, chunk = 65536 }) {
    const stream = streams.get(id)
    const hash = createHash('blake2b512')
    for (let done = 0; done < bytes;) {
      const data = pattern(seed, done, Math.min(chunk, bytes - done))
      hash.update(data)
      done += data.length
      if (!stream.write(data)) await new Promise((resolve) => stream.once('drain', resolve))
    }
    return { hash: hash.digest('hex') }
  },

  /** Ends this side. */
  end ({ stream }) {
    streams.get(stream).end()
  },

  /** Reads until the other side ends, and answers with how much it was and its hash. */
  read ({ stream: id }) {
    const stream = streams.get(id)
    const hash = createHash('blake2b512')
    let bytes = 0
    return new Promise((resolve, reject) => {
      stream.on('data', (data) => {
        bytes += data.length
        hash.update(data)
      })
      stream.on('end', () => resolve({ bytes, hash: hash.digest('hex') }))
      stream.on('close', () => reject(new Error('closed before the end')))
    })
  },

  /** Sends an unordered message. */
  message ({ stream, text }) {
    streams.get(stream).trySend(Buffer.from(text))
  },

  /** Sends a plain datagram. */
  datagram ({ socket = 0, port, text }) {
    sockets[socket].trySend(Buffer.from(text), port, '127.0.0.1')
  },

  /** Moves a stream to another socket of this side; answers once all that went before is acked. */
  async move ({ stream, socket, remote, port }) {
    await streams.get(stream).changeRemote(sockets[socket], remote, port, '127.0.0.1')
  },

  /** Joins two streams: what comes for one goes to the peer of the other. */
  relay ({ left, right }) {
    streams.get(left).relayTo(streams.get(right))
    streams.get(right).relayTo(streams.get(left))
  },

  destroy ({ stream }) {
    streams.get(stream).destroy()
  },

  stats ({ stream }) {
    const { mtu, rtt, retransmits, packetsTransmitted, packetsReceived } = streams.get(stream)
    return { mtu, rtt, retransmits, packetsTransmitted, packetsReceived }
  }
})

/** Twin of `pattern` in ../tests/it/udx/ends.rs. */
function pattern (seed, offset, length) {
  const data = Buffer.allocUnsafe(length)
  for (let i = 0; i < length; i++) {
    const at = offset + i
    data[i] = (Math.imul(at >>> 3, 0x9e3779b1) >>> 13) + at + seed
  }
  return data
}
