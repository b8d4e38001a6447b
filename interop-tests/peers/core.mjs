// A Hypercore peer: makes or opens one core, changes it, reads it. How it is run: peer.mjs.

import { decodeKey, hex, load, reach, serve, store, tell } from './peer.mjs'

let core = null
let conflicts = 0
let snapshot = null
const extensions = new Map()

serve({
  /**
   * Opens the core with this key, the one that this seed's key pair signs, or the store's own of this name. One of a seed
   * may be `compat`, or `legacy`: signed as before there were namespaces.
   */
  async open ({ key, seed, kind, name, encryption, pushOnly }) {
    const which = key ? { key: decodeKey(key) } : seed ? ofPair(keyPair(seed), kind) : { name }
    core = store.get({ ...which, ...secret(encryption) })
    await core.ready()
    if (kind === 'legacy') signAsLegacy(core.core)
    if (pushOnly) {
      core.core.replicator.setAllowPush(true)
      core.core.replicator.setPushOnly(true)
    }
    core.on('conflict', (length, fork) => tell({ event: 'conflict', length, fork }))
    core.on('append', () => tell({ event: 'append', length: core.length, fork: core.fork }))
    core.on('conflict', () => { conflicts++ })
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

  /** Makes `count` cores of `blocks` blocks. */
  async many ({ count, blocks }) {
    const made = []
    for (let i = 0; i < count; i++) {
      core = store.get({ name: 'many ' + i })
      await core.ready()
      await core.append(Array.from({ length: blocks }, (_, block) => Buffer.from(`core ${i}, block ${block}`)))
      made.push(await info())
    }
    return made
  },

  /** Opens the cores with these keys and reads `length` blocks of each. */
  async follow ({ keys, length }) {
    const cores = keys.map((key) => store.get({ key: decodeKey(key) }))
    await Promise.all(cores.map((core) => core.ready()))
    await Promise.all(cores.map(async (core) => {
      await reach(core, length)
      await core.download({ start: 0, end: length }).done()
    }))
    const read = []
    for (core of cores) read.push(await info())
    return read
  },

  /** The text of the first `count` blocks, each read as soon as it is there. */
  async inOrder ({ count }) {
    const texts = []
    for (let i = 0; i < count; i++) texts.push((await core.get(i)).toString())
    return texts
  },

  /** Sends a block to the peers that take what they did not ask for. */
  async push ({ index }) {
    await core.core.replicator.push(index)
  },

  /** What the first peer of the core asked to be told of and has not taken back, and what it asked and was told. */
  wants () {
    const [peer] = (core.core.replicator ?? core.replicator).peers
    const { wireWant, wireBitfield } = peer.stats
    const { any, size } = peer.remoteWants ?? {} // version 10 remembers nothing
    return { any: any?.length ?? 0, batches: size ?? 0, asked: wireWant.rx, bitfields: wireBitfield.tx }
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

  /** Waits for a block for no longer than `timeout` ms. */
  async getOrLeave ({ index, timeout }) {
    try {
      return { base64: (await core.get(index, { timeout })).toString('base64') }
    } catch (err) {
      return { left: err.code }
    }
  },

  /** How many requests were taken back of those that the first peer of the core was sent, and that it sent. */
  cancels () {
    const [peer] = (core.core.replicator ?? core.replicator).peers
    const { wireCancel, wireRequest } = peer.stats
    return { sent: wireCancel.tx, came: wireCancel.rx, asked: wireRequest.rx }
  },

  /** Keeps the view of the core as it is. */
  async snapshot () {
    snapshot = core.snapshot()
    await snapshot.ready()
    return { length: snapshot.length }
  },

  /** Reads of that. */
  async fromSnapshot ({ index }) {
    return { length: snapshot.length, base64: (await snapshot.get(index)).toString('base64') }
  },

  /** How many blocks are stored here, and how many of those are not `size` times their index. */
  async examine ({ size }) {
    let had = 0
    let wrong = 0
    for (let i = 0; i < core.length; i++) {
      if (!await core.has(i)) continue
      had++
      if (!(await core.get(i, { wait: false })).equals(Buffer.alloc(size, i))) wrong++
    }
    return { had, wrong }
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

  /**
   * Makes a core of many signers, of whom the first have signed a source at these lengths, and appends what
   * a quorum of them has seen.
   */
  async quorum ({ seeds, lengths, texts }) {
    const [crypto, caps, multisig] = ['hypercore-crypto', 'hypercore/lib/caps.js', 'hypercore/lib/multisig.js'].map(load)
    const pairs = seeds.map(keyPair)
    const manifest = { version: 1, allowPatch: true, signers: pairs.map(({ publicKey }) => ({ publicKey })) }
    const source = store.get({ name: 'source' })
    await source.append(texts.map((text) => Buffer.from(text)))
    core = store.get({ manifest })
    await core.ready()
    const ofSource = source.core.state ? source : source.core.tree // which version 10 takes
    const common = multisig.signableLength([...lengths], core.manifest.quorum)
    const inputs = await Promise.all(lengths.map(async (length, i) => {
      const signable = caps.treeSignable(core.key, await source.treeHash(length), length, 0)
      const signature = crypto.sign(signable, pairs[i].secretKey)
      return multisig.partialSignature(ofSource, i, common, length, signature)
    }))
    const signature = core.core.verifier.assemble(inputs)
    await core.append(texts.slice(0, common).map((text) => Buffer.from(text)), { signature })
    return info()
  },

  /** Makes a static core of a log of these blocks. */
  async staticify ({ texts }) {
    const source = store.get({ name: 'source' })
    await source.append(texts.map((text) => Buffer.from(text)))
    core = store.staticify ? await store.staticify(source) : await copyAsStatic(source)
    return info()
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
    treeHash: core.length ? hex(await treeHash()) : null,
    writable: core.writable,
    compat: core.core.compat,
    conflicts
  }
}

/** Of what is stored: version 11's own fetches the last block first, and waits for a peer if that was cleared. */
async function treeHash () {
  const Hypercore = core.constructor
  return Hypercore.treeHashFromStorage ? await Hypercore.treeHashFromStorage(core) : await core.treeHash()
}

/** Version 10 has no `staticify`, but all that it is made of. */
async function copyAsStatic (source) {
  const prologue = { hash: await source.treeHash(), length: source.length }
  const copy = store.get({ manifest: { version: 1, quorum: 0, signers: [], prologue } })
  await copy.ready()
  await copy.core.copyPrologue(source.core)
  return copy
}

/** Options for a core that is encrypted under a key of this byte. */
function secret (byte) {
  if (!byte) return {}
  const key = Buffer.alloc(32, byte)
  return { encryptionKey: key, encryption: { key } }
}

/** Options for a core that this pair signs. */
function ofPair (keyPair, kind) {
  return kind ? { key: keyPair.publicKey, keyPair, compat: true, legacy: kind === 'legacy' } : { keyPair }
}

/** Corestore 6 passes no such option on to hypercore 10. */
function signAsLegacy (core) {
  const Verifier = load('hypercore/lib/verifier.js')
  core._legacy = true
  core.verifier = new Verifier(core.header.key, core.header.manifest, { legacy: true })
}

function keyPair (seed) {
  return load('hypercore-crypto').keyPair(Buffer.alloc(32, seed))
}
