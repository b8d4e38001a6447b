// A peer among many: several cores, any number of connections, each of which may end at any time. How it is
// run: peer.mjs.

import net from 'node:net'

import { decodeKey, hex, load, serve, store } from './peer.mjs'

const NoiseSecretStream = load('@hyperswarm/secret-stream')
const cores = []
const streams = new Set()

serve({
  /** Opens core number `slot`: the one with this key, or the store's own of this name; keeps all of it. */
  async open ({ slot, key, name }) {
    const core = store.get(key ? { key: decodeKey(key) } : { name })
    await core.ready()
    cores[slot] = core
    core.download({ start: 0, end: -1 })
    return info(core)
  },

  async append ({ slot, count, size, fill }) {
    await cores[slot].append(Array.from({ length: count }, (_, i) => Buffer.alloc(size, fill + i)))
    return info(cores[slot])
  },

  async truncate ({ slot, length }) {
    await cores[slot].truncate(length)
    return info(cores[slot])
  },

  info ({ slot }) {
    return info(cores[slot])
  },

  listen () {
    return new Promise((resolve, reject) => {
      const server = net.createServer((socket) => replicate(socket, false))
      server.on('error', reject)
      server.listen(0, '127.0.0.1', () => resolve({ port: server.address().port }))
    })
  },

  /** Dials a peer; it may be gone. */
  connect ({ port }) {
    replicate(net.connect(port, '127.0.0.1'), true)
  },

  /** Ends every connection, in the middle of whatever it carries. */
  disconnect () {
    for (const stream of streams) stream.destroy()
  },

  /** Waits until core `slot` is this one, with every block. */
  async converge ({ slot, fork, length, treeHash }) {
    const core = cores[slot]
    for (;;) {
      const now = await info(core)
      const isSame = now.fork === fork && now.length === length && now.treeHash === treeHash
      if (isSame && now.contiguousLength === length) return now
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
})

function replicate (socket, isInitiator) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.on('error', () => {})
  stream.on('close', () => streams.delete(stream))
  streams.add(stream)
  store.replicate(stream)
}

async function info (core) {
  return {
    id: core.id,
    fork: core.fork,
    length: core.length,
    contiguousLength: core.contiguousLength,
    treeHash: core.length ? hex(await core.treeHash()) : null
  }
}
