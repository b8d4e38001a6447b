// Takes part in the discovery of swarm/src/lan/announcement.rs: what lets a swarm of Node peers meet ferrocore's on a local
// network, without the internet. The test below it steers a Hyperdrive with it, as drive.mjs does over TCP.
//
// Usage: node lan.mjs TREE STORAGE MULTICAST ADDRESS
//   MULTICAST  folder with multicast-dns
//   ADDRESS    ours on the local network

import { createRequire } from 'node:module'
import net from 'node:net'
import path from 'node:path'

import { decodeKey, hex, load, reach, serve, store, tell } from './peer.mjs'

const b4a = load('b4a')
const crypto = load('sodium-universal')
const Hyperdrive = load('hyperdrive')
const NoiseSecretStream = load('@hyperswarm/secret-stream')
const [multicast, address] = process.argv.slice(4)

// --- the shim ---

const TYPE = '_ferrocore._tcp.local'
const KEY = b4a.from('ferrocore/lan/v1')
const instance = randomHex(16)
const mdns = createRequire(path.resolve(multicast, 'package.json'))('multicast-dns')({ interface: address, bind: '0.0.0.0' })

/** How the node of this name shows a topic on a day, yesterday being -1. */
function tag (topic, name, offset = 0) {
  const day = b4a.alloc(8)
  day.writeBigUInt64LE(BigInt(Math.floor(Date.now() / 86_400_000) + offset))
  const hash = b4a.alloc(32)
  crypto.crypto_generichash(hash, b4a.concat([topic, day, b4a.from(name)]), KEY)
  return b4a.toString(hash.subarray(0, 16), 'hex')
}

/** Lets peers of at most eight topics find us, and hands their streams to `onpeer`. */
export function announce (topics, onpeer) {
  const server = net.createServer((socket) => onpeer(new NoiseSecretStream(false, socket)))
  server.listen(0, address, () => {
    const name = `${instance}.${TYPE}`
    const host = `${instance}.local`
    const records = () => [
      { name: TYPE, type: 'PTR', ttl: 120, data: name },
      { name, type: 'SRV', ttl: 120, data: { port: server.address().port, target: host } },
      { name, type: 'TXT', ttl: 120, data: ['v=1', ...topics.map((topic, i) => `t${i}=${tag(topic, instance)}`)] },
      { name: host, type: 'A', ttl: 120, data: address }
    ]
    mdns.on('query', ({ questions }) => questions.some((q) => q.name === TYPE) && mdns.respond(records()))
    mdns.respond(records())
  })
}

/** Whether an announcement shows a tag: by itself, or with more than eight others in a filter in parts of 200 bytes. */
function shows (txt, tag) {
  const entries = txt.filter((entry) => /^[tf]\d=/.test(entry.subarray(0, 3))).sort(b4a.compare)
  const parts = entries.filter((entry) => entry[0] === 0x66).map((entry) => entry.subarray(3))
  if (parts.length === 0) return entries.some((entry) => b4a.toString(entry.subarray(3)) === tag)
  const filter = b4a.concat(parts)
  const words = [0, 4, 8, 12].map((at) => b4a.from(tag, 'hex').readUInt32LE(at) % (filter.length * 8))
  return words.every((bit) => filter[bit >> 3] & (1 << (bit & 7)))
}

/** Looks for peers of a topic, once, and hands the streams to each to `onpeer`. */
export function lookup (topic, onpeer) {
  const seen = new Set([instance])
  mdns.on('response', ({ answers, additionals }) => {
    const records = [...answers, ...additionals]
    for (const { name, data: { port, target } } of records.filter((each) => each.type === 'SRV')) {
      const id = name.split('.')[0]
      const txt = records.find((each) => each.type === 'TXT' && each.name === name)?.data ?? []
      const at = records.find((each) => each.type === 'A' && each.name === target)?.data
      const tags = [-1, 0, 1].map((day) => tag(topic, id, day))
      if (!at || seen.has(id) || !tags.some((each) => shows(txt, each))) continue
      seen.add(id)
      onpeer(new NoiseSecretStream(true, net.connect(port, at)))
    }
  })
  // A packet may be lost.
  mdns.query(TYPE, 'PTR')
  setInterval(() => mdns.query(TYPE, 'PTR'), 2_000).unref()
}

// --- what the test does with it ---

let drive = null

serve({
  async open ({ key }) {
    drive = new Hyperdrive(store, decodeKey(key))
    await drive.ready()
    return { key: hex(drive.key), version: drive.version }
  },
  put: ({ path, text }) => drive.put(path, b4a.from(text)),
  announce: () => announce([drive.discoveryKey], replicate),
  lookup: () => lookup(drive.discoveryKey, replicate),
  async get ({ path, version }) {
    await reach(drive.core, version)
    return b4a.toString(await drive.get(path))
  }
})

function replicate (stream) {
  stream.on('error', (err) => tell({ event: 'failed', message: err.message }))
  stream.opened.then((opened) => opened && tell({ event: 'connected', remote: hex(stream.remotePublicKey) }))
  store.replicate(stream)
}

function randomHex (length) {
  const bytes = b4a.alloc(length)
  crypto.randombytes_buf(bytes)
  return b4a.toString(bytes, 'hex')
}
