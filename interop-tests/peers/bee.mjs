// A Hyperbee peer: makes or opens one bee, changes it, reads it. How it is run: peer.mjs.
// Keys and values travel as JSON in the bee's encodings; bytes (encoding "binary") as hex.

import { decodeKey, hex, load, reach, serve, store, tell } from './peer.mjs'

const Hyperbee = load('hyperbee')

let bee = null
let encodings = null

serve({
  /** Opens the bee with this key, or the store's own of this name. */
  async open ({ key, name, keyEncoding = 'utf-8', valueEncoding = 'utf-8' }) {
    encodings = { key: keyEncoding, value: valueEncoding }
    const core = store.get(key ? { key: decodeKey(key) } : { name })
    bee = new Hyperbee(core, { keyEncoding, valueEncoding })
    await bee.ready()
    core.on('append', () => tell({ event: 'version', version: bee.version }))
    return info()
  },

  info,

  /** Waits until the bee has reached `version`. */
  async reach ({ version }) {
    await reach(bee.core, version)
    return info()
  },

  put ({ key, value }) {
    return bee.put(read('key', key), read('value', value)).then(info)
  },

  del ({ key }) {
    return bee.del(read('key', key)).then(info)
  },

  /** Applies [{ key, value }] in one batch; an item without a value deletes. */
  async batch ({ items }) {
    const batch = bee.batch()
    for (const { key, value } of items) {
      if (value === undefined) await batch.del(read('key', key))
      else await batch.put(read('key', key), read('value', value))
    }
    await batch.flush()
    return info()
  },

  async get ({ key, version }) {
    const view = version === undefined ? bee : bee.checkout(version)
    const node = await view.get(read('key', key))
    return node && show(node)
  },

  /** Reads a range; gt, gte, lt, lte, reverse and limit as in Hyperbee. */
  async range ({ reverse, limit, ...bounds }) {
    const range = Object.fromEntries(Object.entries(bounds).map(([name, key]) => [name, read('key', key)]))
    const nodes = []
    for await (const node of bee.createReadStream(range, { reverse, limit })) nodes.push(show(node))
    return nodes
  }
})

async function info () {
  return {
    id: bee.core.id,
    key: hex(bee.core.key),
    version: bee.version,
    length: bee.core.length,
    treeHash: bee.core.length ? hex(await bee.core.treeHash()) : null,
    writable: bee.writable
  }
}

function read (part, value) {
  return encodings[part] === 'binary' ? Buffer.from(value, 'hex') : value
}

function show ({ seq, key, value }) {
  return { seq, key: Buffer.isBuffer(key) ? hex(key) : key, value: Buffer.isBuffer(value) ? hex(value) : value }
}
