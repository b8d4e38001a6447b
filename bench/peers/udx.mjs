// udx-native's end of the benchmark of UDX.
//
// Usage: node udx.mjs TREE; how it is steered: ../../interop-tests/peers/conversation.mjs.
// Every command has a twin in ../src/udx_worker.rs that does the same with ferrocore-udx.

import { createHash } from 'node:crypto'

import { load, serve, tell } from '../../interop-tests/peers/conversation.mjs'

const UDX = load('udx-native')

const SENDER = 1000
const RECEIVER = 1000000

const udx = new UDX()
const chunk = Buffer.from(Uint8Array.from({ length: 65536 }, (_, i) => (Math.imul(i >>> 3, 0x9e3779b1) >>> 13) + i))
const held = []

serve({
  /**
   * Takes `streams` streams in and answers with the port; sends `back` bytes over each. An event tells when all has
   * come, and how long after the first stream's beginning.
   */
  receive ({ host, streams, first = 0, back, hash }) {
    const socket = bind(host)
    let start = 0
    const transfers = []
    for (let i = first; i < first + streams; i++) {
      const stream = udx.createStream(RECEIVER + i, {
        firewall (from, port, host) {
          if (stream.connected) return false
          start ||= performance.now()
          stream.connect(from, SENDER + i, port, host)
          write(stream, back)
          return false
        }
      })
      transfers.push(drain(stream, hash))
    }
    Promise.all(transfers).then((heard) => {
      const seconds = (performance.now() - start) / 1000
      tell({ event: 'received', seconds, bytes: total(heard), hash: heard[0].hash })
    })
    return { port: socket.address().port }
  },

  /** Sends `bytes` over each of `streams` streams; answers how long it took until all that comes back was here. */
  async send ({ host, to, port, streams, bytes, hash }) {
    const socket = bind(host)
    const start = performance.now()
    const transfers = []
    let sent = null
    for (let i = 0; i < streams; i++) {
      const stream = udx.createStream(SENDER + i)
      stream.connect(socket, RECEIVER + i, port, to)
      transfers.push(drain(stream, false))
      sent = write(stream, bytes, hash)
    }
    const heard = await Promise.all(transfers)
    const seconds = (performance.now() - start) / 1000
    return { seconds, received: total(heard), hash: await sent }
  },

  /** Opens `streams` streams, sends a byte over each, keeps them; answers by how much the process has grown. */
  async hold ({ host, to, port, streams, first = 0 }) {
    const socket = bind(host)
    const before = process.memoryUsage().rss
    for (let i = first; i < first + streams; i++) {
      const stream = udx.createStream(SENDER + i)
      stream.connect(socket, RECEIVER + i, port, to)
      stream.on('data', () => {})
      stream.write(chunk.subarray(0, 1))
      held.push(stream)
    }
    await Promise.all(held.map((stream) => stream.flush()))
    return { bytes: process.memoryUsage().rss - before }
  }
})

function bind (host) {
  const socket = udx.createSocket()
  socket.bind(0, host)
  return socket
}

/** Writes `bytes` bytes and the end. */
async function write (stream, bytes, wantsHash) {
  const hash = wantsHash && createHash('blake2b512')
  for (let left = bytes; left > 0;) {
    const part = chunk.subarray(0, Math.min(left, chunk.length))
    left -= part.length
    if (hash) hash.update(part)
    if (!stream.write(part)) await new Promise((resolve) => stream.once('drain', resolve))
  }
  stream.end()
  return hash ? hash.digest('hex') : null
}

/** Reads to the end, whatever becomes of the other direction. */
function drain (stream, wantsHash) {
  const hash = wantsHash && createHash('blake2b512')
  let bytes = 0
  return new Promise((resolve) => {
    stream.on('data', (data) => {
      bytes += data.byteLength
      if (hash) hash.update(data)
    })
    const done = () => resolve({ bytes, hash: hash ? hash.copy().digest('hex') : null })
    stream.on('end', done)
    stream.on('close', done)
    stream.on('error', () => {}) // what is missing shows
  })
}

function total (heard) {
  return heard.reduce((sum, { bytes }) => sum + bytes, 0)
}
