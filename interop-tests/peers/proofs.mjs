// The proofs that hypercore makes of one core, each asked for by itself: no peer and no scheduler is between.
//
// Usage: node proofs.mjs TREE STORAGE
//   STORAGE  folder of the core, made when missing

import { load, serve } from './conversation.mjs'

const Hypercore = load('hypercore')
const crypto = load('hypercore-crypto')
const { MerkleTree } = load('hypercore/lib/merkle-tree') // of version 11

let core = null

// A request that is refused in the middle leaves reads behind that nobody waits for.
process.on('unhandledRejection', () => {})

serve({
  /** Makes the core of the pair that `seed` (hex) gives, and does these steps to it. */
  async make ({ seed, steps }) {
    const keyPair = crypto.keyPair(Buffer.from(seed, 'hex'))
    core = new Hypercore(process.argv[3], { keyPair })
    await core.ready()
    for (const step of steps) {
      if (step.truncate !== undefined) await core.truncate(step.truncate)
      else await core.append(step.append.map((block) => Buffer.from(block, 'hex')))
    }
    return { key: core.key.toString('hex'), fork: core.fork, length: core.length }
  },

  /** What it answers to each of the requests; null where it refuses. */
  async prove ({ asks }) {
    const proofs = []
    for (const ask of asks) proofs.push(await prove(ask).catch(() => null))
    return { proofs }
  }
})

/** As the replicator does: plan the proof, send the reads off, wait. */
async function prove (ask) {
  if (!core.core.state) return proveAsVersion10(ask)
  const rx = core.core.state.storage.read()
  const plan = await MerkleTree.proof(core.core.state, rx, ask)
  const block = ask.block ? rx.getBlock(ask.block.index) : null
  rx.tryFlush()
  const proof = await plan.settle()
  if (block) proof.block.value = await block
  return plain(proof)
}

/** The same in version 10, whose trees plan and read in one step. */
async function proveAsVersion10 (ask) {
  const proof = await core.core.tree.proof({ ...ask })
  if (ask.block) proof.block.value = await core.core.blocks.get(ask.block.index)
  return plain(proof)
}

/** Bytes become hex, at any depth; what is absent is left out. */
function plain (value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  const present = Object.entries(value).filter(([, part]) => part !== null && part !== undefined)
  return Object.fromEntries(present.map(([name, part]) => [name, plain(part)]))
}
