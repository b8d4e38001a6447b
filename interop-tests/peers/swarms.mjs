// Swarms of hyperswarm on one node of the DHT, on loopback, steered by the test.
//
// Usage: node swarms.mjs TREE; how it is steered: conversation.mjs.

import { load, serve, tell } from './conversation.mjs'

const DHT = load('hyperdht')
const Hyperswarm = load('hyperswarm')
const createTestnet = load('hyperdht/testnet')

let port = 0
const swarms = []
let crossings = 0

serve({
  /** Starts a network of its own, and answers with its bootstrap port. */
  async testnet ({ size = 4 }) {
    const testnet = await createTestnet(size)
    port = testnet.bootstrap[0].port
    return { port }
  },

  /** Joins the network of another process. */
  attend (network) {
    port = network.port
  },

  /** Opens swarms that share a node, and answers with their keys. They accept peers at once. */
  async open ({ count = 1 }) {
    const dht = new DHT({ host: '127.0.0.1', bootstrap: [{ host: '127.0.0.1', port }], ephemeral: true })
    await dht.fullyBootstrapped()
    const opened = Array.from({ length: count }, () => new Hyperswarm({ dht, keyPair: DHT.keyPair() }))
    for (const swarm of opened) attend(swarm)
    await Promise.all(opened.map((swarm) => swarm.listen()))
    return { keys: opened.map((swarm) => swarm.keyPair.publicKey.toString('hex')) }
  },

  /** Lets every swarm join a topic, and answers when it is announced. */
  async join ({ topic, server = true, client = true }) {
    const joined = swarms.map((swarm) => swarm.join(Buffer.from(topic, 'hex'), { server, client }).flushed())
    await Promise.all(joined)
  },

  joinPeer ({ key }) {
    swarms[0].joinPeer(Buffer.from(key, 'hex'))
  },

  leavePeer ({ key }) {
    swarms[0].leavePeer(Buffer.from(key, 'hex'))
  },

  /** The open connections of one swarm, each by its handshake's hash. */
  connections ({ swarm = 0 }) {
    return { hashes: [...swarms[swarm].connections].map((stream) => stream.handshakeHash.toString('hex')) }
  },

  /** How often a peer was accepted whom the swarm dialled, or had dialled, at that moment. */
  crossings: () => ({ count: crossings }),

  /** How it stands with all swarms: how many have dialled, and how many connections are open. */
  crowd () {
    const dialled = swarms.filter((swarm) => swarm.stats.connects.client.attempted > 0).length
    return { dialled, open: swarms.reduce((sum, swarm) => sum + swarm.connections.size, 0) }
  },

  hangUp () {
    for (const stream of swarms[0].connections) stream.destroy()
  },

  /** What comes over the first connection, as text. */
  hear () {
    const [stream] = swarms[0].connections
    return new Promise((resolve) => stream.once('data', (data) => {
      stream.pause() // else what comes before the next hearer is thrown away
      resolve({ text: data.toString() })
    }))
  },

  /** Sends texts beside the stream of the first connection, each for itself. */
  say ({ texts }) {
    const [stream] = swarms[0].connections
    for (const text of texts) stream.send(Buffer.from(text))
  },

  suspend: () => swarms[0].suspend(),

  resume: () => swarms[0].resume()
})

function attend (swarm) {
  const number = swarms.push(swarm) - 1
  // Before the swarm's own listener, which ends one of the two.
  swarm.server.prependListener('connection', (stream) => {
    if (swarm._allConnections.has(stream.remotePublicKey)) crossings++
  })
  swarm.on('connection', (stream) => {
    stream.on('error', () => {})
    stream.on('close', () => tell({ event: 'disconnected', swarm: number }))
    stream.on('message', (text) => tell({ event: 'message', swarm: number, text: text.toString() }))
    tell({ event: 'connected', swarm: number, hash: stream.handshakeHash.toString('hex') })
  })
}
