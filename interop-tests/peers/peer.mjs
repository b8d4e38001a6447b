// What every peer script shares: the npm tree it runs on, a store, TCP, and the conversation with the test.
//
// Usage: node ROLE.mjs TREE STORAGE
//   TREE     folder with package.json and node_modules (../vectors or ../legacy)
//   STORAGE  folder of the Corestore, made when missing
//
// The test writes one JSON object a line to stdin: {"id":1,"do":"put","path":"/a","text":"hello"}.
// Each is answered once, in any order: {"id":1,"ok":…} or {"id":1,"error":"…"}.
// Lines with "event" and no "id" come unasked. End of stdin ends the process, so no peer outlives its test.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'

const [tree, storage] = process.argv.slice(2)

/** `require` as seen from the chosen npm tree. */
export const load = createRequire(path.resolve(tree, 'package.json'))

const Corestore = load('corestore')
const NoiseSecretStream = load('@hyperswarm/secret-stream')
const { decode } = load('hypercore-id-encoding')

export const store = new Corestore(storage)

/** Turns a key as text (z-base-32 or hex) into bytes; no key stays no key. */
export const decodeKey = (key) => key ? decode(key) : null

export const hex = (bytes) => bytes ? Buffer.from(bytes).toString('hex') : null

/** Answers the test's commands until stdin ends. */
export function serve (commands) {
  const all = { ...network, ...commands }
  createInterface({ input: process.stdin })
    .on('line', (line) => answer(all, JSON.parse(line)))
    .on('close', () => process.exit(0))
  tell({ event: 'started', node: process.version, hypercore: load('hypercore/package.json').version })
}

/** Sends one line to the test. */
export function tell (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

/** Resolves once `core` has at least `length` blocks in its verified head. */
export async function reach (core, length) {
  while (core.length < length) await new Promise((resolve) => core.once('append', resolve))
}

async function answer (commands, { id, do: name, ...args }) {
  try {
    const command = commands[name]
    if (!command) throw new Error(`no such command: ${name}`)
    tell({ id, ok: (await command(args)) ?? null })
  } catch (err) {
    tell({ id, error: err.message })
  }
}

const network = {
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
  store.replicate(stream)
  return stream
}
