// A hyperdht peer on the command line: the twin of ../../swarm/examples/peer.rs, for scripts/nat-test.
//
// Usage: node nat_peer.mjs TREE listen|connect|relay HOST:PORT [KEY] [RELAY|drain]
//        node nat_peer.mjs TREE nodes HOST:PORT COUNT

import { createRequire } from 'node:module'
import path from 'node:path'

const load = createRequire(path.resolve(process.argv[2], 'package.json'))
const DHT = load('hyperdht')
const relay = load('blind-relay')

const [command, bootstrap, ...keys] = process.argv.slice(3)
const [host, port] = bootstrap.split(':')
if (command === 'nodes') {
  await load('hyperdht/testnet')(Number(keys[0]), { host, port: Number(port) })
  console.log('ready', keys[0])
  await new Promise(() => {})
}
const dht = new DHT({ bootstrap: [{ host, port: Number(port) }], ephemeral: true })
await dht.fullyBootstrapped()
const key = (text) => text ? Buffer.from(text, 'hex') : null
const drains = keys.at(-1) === 'drain'
if (drains) keys.pop()

if (command === 'connect' && drains) {
  const stream = dht.connect(key(keys[0]))
  drain(stream)
  stream.on('close', () => process.exit(0))
} else if (command === 'connect') {
  const started = Date.now()
  const stream = dht.connect(key(keys[0]), { relayThrough: key(keys[1]) })
  stream.on('error', (err) => { console.log('failed', err.code); process.exit(1) })
  await new Promise((resolve) => stream.once('open', resolve))
  console.log('connected', stream.rawStream.remoteHost, Date.now() - started)
  const size = 1 << 20
  let count = 0
  stream.on('data', (data) => {
    count += data.length
    if (count < size) return
    console.log('echoed', count)
    stream.end()
    setTimeout(() => process.exit(0), 500)
  })
  for (let i = 0; i < 16; i++) stream.write(Buffer.alloc(65536, i))
} else {
  const joined = command === 'relay' &&
    new relay.Server({ createStream: (opts) => dht.createRawStream({ ...opts, framed: true }) })
  const server = dht.createServer({ relayThrough: command === 'listen' ? key(keys[0]) : null }, (stream) => {
    stream.on('error', () => {})
    if (drains) drain(stream)
    else if (joined) joined.accept(stream, { id: stream.remotePublicKey }).on('error', () => {})
    else stream.pipe(stream)
  })
  const keyPair = DHT.keyPair()
  await server.listen(keyPair)
  console.log('key', keyPair.publicKey.toString('hex'))
}

/** Counts what comes, and ends with the peer. */
function drain (stream) {
  let count = 0
  stream.on('error', (err) => console.log('failed', err.code))
  stream.on('data', (data) => {
    if (!data.equals(Buffer.alloc(65536, count++))) stream.destroy(new Error('another message came'))
  })
  stream.on('end', () => {
    console.log('drained', count * 65536)
    stream.end()
  })
}
