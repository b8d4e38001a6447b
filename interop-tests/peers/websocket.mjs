// A Hypercore peer over WebSockets, as `ws` makes byte streams of them. How it is run: peer.mjs, and
//
//   WEBSOCKET   folder with package.json and node_modules of `ws` (../websocket), behind the others

import { createRequire } from 'node:module'
import path from 'node:path'

import { decodeKey, hex, load, reach, serve, store, tell } from './peer.mjs'

const { WebSocket, WebSocketServer, createWebSocketStream } = createRequire(path.resolve(process.argv[4], 'package.json'))('ws')
const NoiseSecretStream = load('@hyperswarm/secret-stream')

let core = null

serve({
  /** Opens the core with this key, or the store's own of this name. */
  async open ({ key, name }) {
    core = store.get(key ? { key: decodeKey(key) } : { name })
    await core.ready()
    return info()
  },

  /** Appends `count` blocks of `size` bytes; all bytes of block i are i mod 256. */
  async fill ({ count, size }) {
    const first = core.length
    await core.append(Array.from({ length: count }, (_, i) => Buffer.alloc(size, first + i)))
    return info()
  },

  /** Waits until the core has reached `length` and has all of it. */
  async download ({ length }) {
    await reach(core, length)
    await core.download({ start: 0, end: length }).done()
    return info()
  },

  listen () {
    return new Promise((resolve, reject) => {
      const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
      server.on('connection', (socket) => replicate(socket, false))
      server.on('error', reject)
      server.on('listening', () => resolve({ port: server.address().port }))
    })
  },

  async connect ({ port }) {
    const stream = replicate(new WebSocket(`ws://127.0.0.1:${port}/`), true)
    if (!(await stream.opened)) throw new Error('the handshake failed')
  }
})

function replicate (socket, isInitiator) {
  const stream = new NoiseSecretStream(isInitiator, createWebSocketStream(socket))
  stream.on('error', (err) => tell({ event: 'failed', message: err.message }))
  store.replicate(stream)
  return stream
}

async function info () {
  return { id: core.id, length: core.length, treeHash: core.length ? hex(await core.treeHash()) : null }
}
