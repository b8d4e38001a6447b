// A Hyperdrive on a Hyperswarm, on a DHT of its own or another's. How it is run: peer.mjs.

import { decodeKey, hex, load, reach, serve, store, tell } from './peer.mjs'

const b4a = load('b4a')
const createTestnet = load('@hyperswarm/testnet')
const DHT = load('hyperdht')
const Hyperdrive = load('hyperdrive')
const Hyperswarm = load('hyperswarm')

let swarm = null
let drive = null

serve({
  /** A DHT of this process, and a swarm on it. */
  async testnet ({ nodes }) {
    const testnet = await createTestnet(nodes)
    swarm = attend(new Hyperswarm({ dht: testnet.createNode() }))
    return { bootstrap: testnet.bootstrap.map(({ host, port }) => `${host}:${port}`) }
  },

  /** A swarm on a DHT that there is; `address` is this host's. */
  async attend ({ bootstrap, address = '127.0.0.1' }) {
    const [host, port] = bootstrap.split(':')
    swarm = attend(new Hyperswarm({ dht: new DHT({ bootstrap: [{ host, port: Number(port) }], host: address }) }))
  },

  async open ({ key }) {
    drive = new Hyperdrive(store, decodeKey(key))
    await drive.ready()
    return { key: hex(drive.key) }
  },

  put: ({ path, text }) => drive.put(path, b4a.from(text)),

  /** Announces and looks up the drive, until whoever was found has been tried. */
  async join ({ server = true, client = true }) {
    await swarm.join(drive.discoveryKey, { server, client }).flushed()
  },

  async get ({ path, version }) {
    await reach(drive.core, version)
    return b4a.toString(await drive.get(path))
  }
})

function attend (swarm) {
  swarm.on('connection', (stream) => {
    stream.on('error', (err) => tell({ event: 'failed', message: err.message }))
    tell({ event: 'connected', remote: hex(stream.remotePublicKey) })
    store.replicate(stream)
  })
  return swarm
}
