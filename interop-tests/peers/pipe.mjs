// A Hypercore whose only connection is stdin and stdout. What there is to say goes to stderr, one JSON object a line.
//
// Usage: node pipe.mjs TREE STORAGE             makes a log of 50 blocks, tells its key, serves it until stdin ends
//        node pipe.mjs TREE STORAGE KEY LENGTH  reads so many blocks of a log, tells its tree hash, and ends

import { createRequire } from 'node:module'
import path from 'node:path'
import { Duplex } from 'node:stream'

const [tree, storage, key, length] = process.argv.slice(2)
const load = createRequire(path.resolve(tree, 'package.json'))
const Corestore = load('corestore')
const NoiseSecretStream = load('@hyperswarm/secret-stream')
const { decode } = load('hypercore-id-encoding')

const store = new Corestore(storage)
const core = store.get(key ? { key: decode(key) } : { name: 'log' })
await core.ready()
if (!key) await core.append(Array.from({ length: 50 }, (_, i) => Buffer.alloc(1000, i)))

// The writer is the initiator of the handshake.
const stream = new NoiseSecretStream(!key, Duplex.from({ readable: process.stdin, writable: process.stdout }))
stream.on('error', (err) => tell({ error: err.message }))
stream.on('close', () => process.exit(0))
store.replicate(stream)

if (key) {
  while (core.length < Number(length)) await new Promise((resolve) => core.once('append', resolve))
  await core.download({ start: 0, end: core.length }).done()
}
tell({ key: core.key.toString('hex'), length: core.length, treeHash: (await core.treeHash()).toString('hex') })
if (key) stream.end()

function tell (message) {
  process.stderr.write(JSON.stringify(message) + '\n')
}
