// What every peer script shares: a store, TCP, and the conversation with the test (conversation.mjs).
//
// Usage: node ROLE.mjs TREE STORAGE
//   TREE     folder with package.json and node_modules (../vectors or ../legacy)
//   STORAGE  folder of the Corestore, made when missing

import { readFileSync } from 'node:fs'
import net from 'node:net'

import { load, serve as converse, tell } from './conversation.mjs'

export { load, tell }

const storage = process.argv[3]

const Corestore = load('corestore')
const Protomux = load('protomux')
const NoiseSecretStream = load('@hyperswarm/secret-stream')
const { decode } = load('hypercore-id-encoding')

export const store = new Corestore(storage)

/** Turns a key as text (z-base-32 or hex) into bytes; no key stays no key. */
export const decodeKey = (key) => key ? decode(key) : null

export const hex = (bytes) => bytes ? Buffer.from(bytes).toString('hex') : null

/** Answers the test's commands until stdin ends. */
export function serve (commands) {
  converse({ ...network, ...commands })
}

/** Resolves once `core` has at least `length` blocks in its verified head. */
export async function reach (core, length) {
  while (core.length < length) await new Promise((resolve) => core.once('append', resolve))
}

/** Whether cores are replicated under the protocol's older name. */
let older = false

const network = {
  /** From now on connections replicate cores under the protocol's older name. */
  useOlderName () {
    older = true
  },

  /** Accepts peers on a free port; whoever listens is the responder of the handshake. */
  listen () {
    return new Promise((resolve, reject) => {
      const server = net.createServer((socket) => replicate(socket, false))
      server.on('error', reject)
      server.listen(0, '127.0.0.1', () => resolve({ port: server.address().port }))
    })
  },

  /** Dials a peer and returns once the handshake is done; whoever dials is the initiator. */
  async connect ({ port }) {
    const stream = replicate(net.connect(port, '127.0.0.1'), true)
    if (!(await stream.opened)) throw new Error('the handshake failed')
    return { remote: hex(stream.remotePublicKey) }
  },

  /** The most memory this process has held, in bytes. The figure of getrusage counts the parent's, too. */
  memory () {
    const [, kibibytes] = readFileSync('/proc/self/status', 'utf8').match(/VmHWM:\s+(\d+) kB/)
    return { peak: kibibytes * 1024 }
  },

  /** Writes everything out and closes the store; the process goes on until stdin ends. */
  async close () {
    await store.close()
  }
}

function replicate (socket, isInitiator) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.opened.then((opened) => opened && tell({ event: 'connected', remote: hex(stream.remotePublicKey) }))
  stream.on('error', (err) => tell({ event: 'failed', message: err.message }))
  stream.on('close', () => tell({ event: 'disconnected' }))
  if (older) rename(Protomux.from(stream))
  store.replicate(stream)
  return stream
}

/** Makes `hypercore/alpha` an alias of `hypercore`, where hypercore makes it the other way round. */
function rename (mux) {
  const create = mux.createChannel.bind(mux)
  mux.createChannel = (opts) => create({ ...opts, protocol: 'hypercore', aliases: ['hypercore/alpha'] })
}
