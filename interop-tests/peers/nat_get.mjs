// Fetches the first block of a core that it finds by the core's key, as a Hyperswarm: for scripts/nat-test.
//
// Usage: node nat_get.mjs TREE HOST:PORT KEY DIRECTORY

import { createRequire } from 'node:module'
import path from 'node:path'

const load = createRequire(path.resolve(process.argv[2], 'package.json'))
const DHT = load('hyperdht')
const Hyperswarm = load('hyperswarm')
const Hypercore = load('hypercore')
const z32 = load('z32')

const [bootstrap, key, directory] = process.argv.slice(3)
const [host, port] = bootstrap.split(':')
const dht = new DHT({ bootstrap: [{ host, port: Number(port) }], ephemeral: true })
const swarm = new Hyperswarm({ dht })
const core = new Hypercore(directory, z32.decode(key))
await core.ready()
swarm.on('connection', (stream) => {
  console.log('connected', stream.rawStream.remoteHost)
  stream.on('error', () => {})
  core.replicate(stream)
})
swarm.join(core.discoveryKey, { server: false, client: true })
const block = await core.get(0)
console.log('got', block.length)
process.exit(0)
