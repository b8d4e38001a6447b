// A peer among many: several cores, any number of connections, each of which may end at any time. How it is
// run: peer.mjs.

import net from 'node:net'

import { decodeKey, hex, load, serve, store } from './peer.mjs'

const NoiseSecretStream = load('@hyperswarm/secret-stream')
const { data, parent, tree } = load('hypercore-crypto')
const cores = []
const streams = new Set()
const failures = []

serve({
  /** Opens core number `slot`: the one with this key, or the store's own of this name; keeps all of it. */
  async open ({ slot, key, name }) {
    const core = store.get(key ? { key: decodeKey(key) } : { name })
    await core.ready()
    cores[slot] = core
    core.on('verification-error', (err, req, res) => failures.push(refusal(core, err, req, res)))
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

  /** What this peer thinks of core `slot` and of those it replicates it with: why it does not get on. */
  explain ({ slot }) {
    const core = cores[slot]
    const { state, tree: older, header } = core.core
    const replicator = core.core.replicator ?? core.replicator
    const { fork, length } = state ?? older
    const peers = replicator.peers.map((peer) => ({
      to: peer.stream.rawStream.localPort + '-' + peer.stream.rawStream.remotePort,
      paused: peer.paused,
      missing: peer.missingBlocks && bits(peer.missingBlocks, length),
      fork: peer.remoteFork,
      length: peer.remoteLength,
      acked: peer.lengthAcked,
      contiguous: peer._remoteContiguousLength,
      canUpgrade: peer.canUpgrade,
      remoteCanUpgrade: peer.remoteCanUpgrade,
      uploading: peer.remoteUploading,
      inflight: peer.inflight,
      syncs: peer.syncsProcessing,
      denials: peer.stats.notAvailableBackoffs,
      invalidData: peer.stats.invalidData,
      invalidRequests: peer.stats.invalidRequests
    }))
    return {
      fork,
      length,
      contiguous: header.hints.contiguousLength,
      here: bits(core.core.bitfield, length),
      // In flight, or here: of version 11.
      skipped: core.core.skipBitfield && bits(core.core.skipBitfield, length),
      tracked: [...replicator._blocks].map((b) => ({ index: b.index, inflight: b.inflight.length, queued: b.queued, refs: b.refs.length })),
      peers,
      failures,
      reorgs: replicator._reorgs.map((f) => ({ fork: f.fork, inflight: f.inflight.length, want: f.batch && f.batch.want })),
      applying: replicator._applyingReorg !== null,
      upgrade: replicator._upgrade && replicator._upgrade.inflight.length,
      ranges: replicator._ranges.map((r) => ({ start: r.start, end: r.end })),
      inflight: [...replicator._inflight].map((r) => ({ id: r.id, fork: r.fork, block: r.block, hash: r.hash, upgrade: r.upgrade }))
    }
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

  /** Waits until core `slot` is this one, with every block; tells what went wrong so far. */
  async converge ({ slot, fork, length, treeHash }) {
    const core = cores[slot]
    for (let turn = 1; ; turn++) {
      const now = info(core)
      const isSame = now.fork === fork && now.length === length && now.treeHash === treeHash
      if (isSame && now.contiguousLength === length) break
      if (isSame && turn % 50 === 0) askForLost(core)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const stored = length ? hex(await core.treeHash()) : null
    if (stored !== treeHash) throw new Error(`${stored} is stored, not ${treeHash}`)
    const grown = length ? hex(await hashOfBlocks(core, length)) : null
    if (grown !== treeHash) throw new Error(`the blocks that are stored make ${grown}, not ${treeHash}`)
    return failures
  }
})

/**
 * Asks for blocks that this peer takes for asked, for ever, though nobody is: version 11.37.1 may do so with all but the first of those
 * that it verifies together in the moment in which it adopts a fork (docs/RELIABILITY.md). Who reads them by themselves gets them.
 */
function askForLost (core) {
  const { bitfield, skipBitfield, replicator } = core.core
  if (!skipBitfield || [...replicator._inflight].length > 0) return
  for (let index = 0; index < core.length; index++) {
    if (bitfield.get(index) || !skipBitfield.get(index)) continue
    failures.push(`block ${index} was lost in the move to fork ${core.fork}`)
    core.get(index).catch((err) => failures.push(err.message))
  }
}

/** The hash over the roots that grow from the first `length` blocks as they are stored. */
async function hashOfBlocks (core, length) {
  const roots = []
  for (let index = 0; index < length; index++) {
    const block = await core.get(index, { wait: false })
    if (block === null) throw new Error(`block ${index} is not here`)
    let node = { index: 2 * index, size: block.byteLength, hash: data(block) }
    // As many trees are full with this block as its number ends in ones.
    for (let ones = index; ones & 1; ones >>= 1) {
      const left = roots.pop()
      node = {
        index: (left.index + node.index) / 2,
        size: left.size + node.size,
        hash: parent(left, node)
      }
    }
    roots.push(node)
  }
  return tree(roots)
}

function replicate (socket, isInitiator) {
  if (store.closing) return socket.destroy()
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.on('error', (err) => failures.push(err.message))
  stream.on('close', () => streams.delete(stream))
  streams.add(stream)
  store.replicate(stream)
}

/** What did not verify, and when. */
function refusal (core, err, req, res) {
  const parts = ({ block, hash, upgrade, fork }) => ({
    fork,
    block: block?.index,
    nodes: block?.nodes.length ?? block?.nodes,
    hash: hash?.index,
    upgrade: upgrade && [upgrade.start, upgrade.length]
  })
  const { fork, length } = info(core)
  return JSON.stringify({ err: err.message, at: { fork, length }, req: req && parts(req), res: res && parts(res) })
}

/** The runs of bits that are set before `end`. */
function bits (bitfield, end) {
  const runs = []
  for (let i = 0; i < end; i++) {
    if (!bitfield.get(i)) continue
    const last = runs[runs.length - 1]
    if (last && last[1] === i) last[1]++
    else runs.push([i, i + 1])
  }
  return runs.map(([start, end]) => `${start}..${end}`).join(' ')
}

/** Of one moment: `core.treeHash()` reads from storage, which may change meanwhile, and waits for the last block. */
function info (core) {
  const { fork, length, roots } = core.core.state ?? core.core.tree // as version 10 calls it
  return {
    id: core.id,
    fork,
    length,
    contiguousLength: core.contiguousLength,
    treeHash: length ? hex(tree(roots)) : null
  }
}
