// Hypercore's side of the benchmark of the log. Times what it is told to do and answers how long it took.
//
// Usage: node log.mjs TREE; how it is steered: ../../interop-tests/peers/conversation.mjs.
// Every command has a twin in ../src/worker.rs that does the same with ferrocore.

import { readFileSync } from 'node:fs'
import net from 'node:net'

import { load, serve } from '../../interop-tests/peers/conversation.mjs'

const Hypercore = load('hypercore')
const NoiseSecretStream = load('@hyperswarm/secret-stream')

let held = null

serve({
  /** Appends `count` blocks of `size` bytes to a new core, one after the other. */
  async append ({ dir, count, size }) {
    const core = await open(dir)
    const block = Buffer.alloc(size, 7)
    const seconds = await timed(async () => {
      for (let i = 0; i < count; i++) await core.append(block)
    })
    return finish(core, seconds)
  },

  /** Appends `count` blocks of `size` bytes to a new core, `batch` at a time. */
  async append_batches ({ dir, count, size, batch }) {
    const core = await open(dir)
    const blocks = new Array(batch).fill(Buffer.alloc(size, 7))
    const seconds = await timed(async () => {
      for (let done = 0; done < count; done += batch) await core.append(blocks)
    })
    return finish(core, seconds)
  },

  /** Reads `count` random blocks of a core, at most `in_flight` at once. */
  async get ({ dir, count, size, in_flight: inFlight }) {
    const core = await open(dir)
    const indexes = randomIndexes(count, core.length)
    let next = 0
    const one = async () => {
      while (next < count) {
        const block = await core.get(indexes[next++])
        if (block.byteLength !== size) throw new Error('a block has the wrong size')
      }
    }
    const seconds = await timed(() => Promise.all(Array.from({ length: inFlight }, one)))
    return finish(core, seconds)
  },

  /** Opens a core and tells how long its head takes to be known. */
  async open ({ dir, length }) {
    const start = performance.now()
    const core = new Hypercore(dir)
    await core.ready()
    if (core.length !== length) throw new Error('the core has the wrong length')
    return finish(core, (performance.now() - start) / 1000)
  },

  /** Fetches `count` random blocks of the core `key` from a peer on this machine. */
  async fetch ({ dir, key, port, length, count }) {
    const core = new Hypercore(dir, Buffer.from(key, 'hex'))
    await core.ready()
    const socket = net.connect(port, '127.0.0.1')
    const stream = new NoiseSecretStream(true, socket)
    stream.on('error', () => {})
    core.replicate(stream)
    const done = core.findingPeers()
    stream.opened.then(() => core.update().then(done, done))
    await core.update({ wait: true })
    if (core.length !== length) throw new Error('the core has the wrong length')
    const indexes = randomIndexes(count, length)
    let next = 0
    const one = async () => { while (next < count) await core.get(indexes[next++]) }
    await Promise.all(Array.from({ length: 64 }, one))
    stream.destroy()
    await core.close()
  },

  /** Serves the core in `dir` to peers on this machine from now on. */
  async supply ({ dir }) {
    held = await open(dir)
    const port = await new Promise((resolve) => {
      const server = net.createServer((socket) => {
        socket.setNoDelay(true)
        const stream = new NoiseSecretStream(false, socket)
        stream.on('error', () => {})
        held.replicate(stream)
      })
      server.listen(0, '127.0.0.1', () => resolve(server.address().port))
    })
    return { key: held.key.toString('hex'), port }
  },

  /** Downloads all of the core `key` from a peer on this machine. */
  async download ({ dir, key, port, length }) {
    const core = new Hypercore(dir, Buffer.from(key, 'hex'))
    await core.ready()
    const start = performance.now()
    const socket = net.connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    const stream = new NoiseSecretStream(true, socket)
    stream.on('error', () => {})
    core.replicate(stream)
    const done = core.findingPeers()
    stream.opened.then(() => core.update().then(done, done))
    await core.update({ wait: true })
    if (core.length !== length) throw new Error('the core has the wrong length')
    await core.download({ start: 0, end: length }).done()
    const seconds = (performance.now() - start) / 1000
    const counted = Object.values(core.replicator.stats).filter((kind) => typeof kind === 'object')
    const messages = counted.reduce((sum, { tx, rx }) => sum + tx + rx, 0)
    const wire = socket.bytesRead + socket.bytesWritten
    stream.destroy()
    await core.close()
    return { seconds, wire, messages }
  },

  /** Processor time that this process has taken so far, in seconds. */
  spent () {
    const { user, system } = process.cpuUsage()
    return { seconds: (user + system) / 1e6 }
  },

  /** Opens a core, reads `count` blocks that `fetch` fetched, and keeps it open; tells the memory held. */
  async hold ({ dir, length, count }) {
    held = await open(dir)
    if (held.length !== length) throw new Error('the core has the wrong length')
    for (const index of randomIndexes(count, length)) await held.get(index, { wait: false })
    const [, kibibytes] = readFileSync('/proc/self/status', 'utf8').match(/VmRSS:\s+(\d+) kB/)
    return { bytes: kibibytes * 1024 }
  }
})

async function open (dir) {
  const core = new Hypercore(dir)
  await core.ready()
  return core
}

async function timed (work) {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}

async function finish (core, seconds) {
  await core.close()
  return { seconds }
}

/** The same places in every process: a Lehmer generator modulo 2^31 - 1. */
function randomIndexes (count, length) {
  let state = 1
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return state % length
  })
}
