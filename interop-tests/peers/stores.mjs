// Many Corestores one after the other, for tests that take turns on their files. How it is run: peer.mjs; the
// STORAGE it is given stays unused.

import { decodeKey, hex, load, serve } from './peer.mjs'

const Corestore = load('corestore')
const Hypercore = load('hypercore')

let store = null
let core = null

serve({
  /**
   * Opens the store in `directory`, and in it the core `name` (as hypercore 10 makes them by default if `compat`,
   * else with a manifest of version `manifestVersion`) or the one with this key.
   */
  async open ({ directory, key, name, compat = true, manifestVersion }) {
    store = new Corestore(directory, { compat, manifestVersion })
    core = store.get(key ? { key: decodeKey(key) } : { name })
    await core.ready()
    return info()
  },

  /** Opens the store in `directory`, and no core in it. */
  async openStore ({ directory }) {
    store = new Corestore(directory)
    await store.ready()
  },

  /** Opens the one core whose files are in `directory`, without a store: hypercore 10 only. */
  async openBare ({ directory }) {
    core = new Hypercore(directory, { createIfMissing: false })
    await core.ready()
    return info()
  },

  /** Does these steps in order. */
  async run ({ steps }) {
    for (const step of steps) await run(step)
    return info()
  },

  info,

  /** Every block from `from` on in base64, null for those that are not here. */
  async blocks ({ from = 0 }) {
    const blocks = []
    for (let index = from; index < core.length; index++) {
      const block = await core.get(index, { wait: false })
      blocks.push(block ? block.toString('base64') : null)
    }
    return { blocks }
  },

  /** Which block holds a byte. */
  async seek ({ bytes }) {
    const [index, offset] = await core.seek(bytes, { wait: false })
    return { index, offset }
  },

  /** Empties the journal into the other files. */
  async flush () {
    await core.core.flush()
  },

  async shut () {
    await core.close()
    if (store) await store.close()
    store = null
  }
})

async function run (step) {
  if (step.append) await core.append(step.append.map((block) => Buffer.from(block, 'base64')))
  else if (step.truncate !== undefined) await core.truncate(step.truncate)
  else if (step.clear) await core.clear(...step.clear)
  else if (step.userData) await core.setUserData(step.userData[0], step.userData[1] ? Buffer.from(step.userData[1], 'base64') : null)
  else throw new Error(`no such step: ${JSON.stringify(step)}`)
}

async function info () {
  return {
    key: hex(core.key),
    length: core.length,
    fork: core.fork,
    byteLength: core.byteLength,
    contiguousLength: core.contiguousLength,
    treeHash: core.length ? hex(await core.treeHash()) : null,
    writable: core.writable,
    userData: await userData()
  }
}

async function userData () {
  const found = {}
  for (const key of ['a', 'b', 'c']) {
    const value = await core.getUserData(key)
    if (value && value.length) found[key] = value.toString('base64')
  }
  return found
}
