// A Hypercore peer: makes or opens one core, changes it, reads it. How it is run: peer.mjs.

import { decodeKey, hex, reach, serve, store, tell } from './peer.mjs'

let core = null
const extensions = new Map()

serve({
  /** Opens the core with this key, or the store's own of this name. */
  async open ({ key, name }) {
    core = store.get(key ? { key: decodeKey(key) } : { name })
    await core.ready()
    core.on('append', () => tell({ event: 'append', length: core.length, fork: core.fork }))
    core.on('truncate', (ancestors, fork) => tell({ event: 'truncate', length: ancestors, fork }))
    return info()
  },

  info,

  /** Waits until the core has reached `length`. */
  async reach ({ length }) {
    await reach(core, length)
    return info()
  },

  /** Appends these blocks in one batch. */
  async append ({ blocks }) {
    await core.append(blocks.map((block) => Buffer.from(block, 'base64')))
    return info()
  },

  /** Appends `count` blocks of `size` bytes; all bytes of block i are i mod 256, so an offset error shows. */
  async fill ({ count, size }) {
    const batch = 1000
    for (let done = 0; done < count; done += batch) {
      const first = core.length
      await core.append(Array.from({ length: Math.min(batch, count - done) }, (_, i) => Buffer.alloc(size, first + i)))
    }
    return info()
  },

  async truncate ({ length }) {
    await core.truncate(length)
    return info()
  },

  /** Drops the local copy of blocks `start` to `end`. */
  async clear ({ start, end }) {
    await core.clear(start, end)
    return info()
  },

  async get ({ index }) {
    return { base64: (await core.get(index)).toString('base64') }
  },

  async has ({ start, end }) {
    return core.has(start, end)
  },

  async seek ({ bytes }) {
    const [index, offset] = await core.seek(bytes)
    return { index, offset }
  },

  /** Registers an extension of bare bytes; what comes is told as an event. */
  async extension ({ name }) {
    extensions.set(name, core.registerExtension(name, {
      encoding: 'binary',
      onmessage: (message) => tell({ event: 'extension', name, text: message.toString() })
    }))
  },

  /** Sends a message to every peer of the core. */
  async say ({ name, text }) {
    extensions.get(name).broadcast(Buffer.from(text))
  },

  /** Returns once blocks `start` to `end` are stored here. */
  async download ({ start = 0, end = core.length }) {
    await core.download({ start, end }).done()
    return info()
  }
})

async function info () {
  return {
    id: core.id,
    key: hex(core.key),
    discoveryKey: hex(core.discoveryKey),
    length: core.length,
    fork: core.fork,
    byteLength: core.byteLength,
    contiguousLength: core.contiguousLength,
    treeHash: core.length ? hex(await core.treeHash()) : null,
    writable: core.writable,
    compat: core.core.compat
  }
}
