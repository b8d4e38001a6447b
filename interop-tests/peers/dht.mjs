// Nodes of hyperdht on loopback, steered by the test.
//
// Usage: node dht.mjs TREE; how it is steered: conversation.mjs.

import { load, serve } from './conversation.mjs'

const DHT = load('hyperdht')
const createTestnet = load('hyperdht/testnet')

const nodes = []
let testnet = null

const hex = (buffer) => Buffer.from(buffer).toString('hex')
const bytes = (text) => Buffer.from(text, 'hex')
const keyPair = (seed) => DHT.keyPair(bytes(seed))
const address = ({ host, port }) => `${host}:${port}`

serve({
  /** A network of `size` nodes that stay, the first of them the bootstrap of all. */
  async testnet ({ size }) {
    testnet = await createTestnet(size)
    nodes.push(...testnet.nodes)
    return { port: testnet.bootstrap[0].port }
  },

  /** `count` nodes more, which stay unless `client`; their bootstrap is at `port`. */
  async join ({ count, port, client = false }) {
    for (let i = 0; i < count; i++) {
      const node = new DHT({
        bootstrap: [{ host: '127.0.0.1', port }],
        host: '127.0.0.1',
        // Any port. By default they begin at 49737: one that was killed would be replaced there by a node of another test's
        // network, and those that still ask for it would make one network of the two.
        port: [0, 1],
        ephemeral: client,
        firewalled: client
      })
      await node.fullyBootstrapped()
      nodes.push(node)
    }
    return { nodes: nodes.length }
  },

  /** How each node stands. */
  status () {
    return nodes.filter((node) => !node.destroyed).map((node) => ({
      id: node.id && hex(node.id),
      firewalled: node.firewalled,
      known: node.nodes.length
    }))
  },

  /** Ends the nodes from number `from` up to `to`, without saying good-bye. */
  async kill ({ from, to }) {
    await Promise.all(nodes.slice(from, to).map((node) => node.destroy({ force: true })))
  },

  async announce ({ node, topic, seed, relays = [] }) {
    const query = nodes[node].announce(bytes(topic), keyPair(seed), relays)
    await query.finished()
    return { nodes: query.closestNodes.length }
  },

  async unannounce ({ node, topic, seed }) {
    await nodes[node].unannounce(bytes(topic), keyPair(seed))
  },

  /** The keys under a topic, each once, with how many nodes named it. */
  async lookup ({ node, topic }) {
    const found = {}
    for await (const { peers } of nodes[node].lookup(bytes(topic))) {
      for (const peer of peers) {
        const key = hex(peer.publicKey)
        found[key] ??= { times: 0, relays: peer.relayAddresses.map(address) }
        found[key].times++
      }
    }
    return found
  },

  async findPeer ({ node, key }) {
    for await (const { peer } of nodes[node].findPeer(bytes(key))) return hex(peer.publicKey)
  },

  async mutablePut ({ node, seed, seq, value }) {
    await nodes[node].mutablePut(keyPair(seed), Buffer.from(value), { seq })
  },

  async mutableGet ({ node, key }) {
    const found = await nodes[node].mutableGet(bytes(key))
    return found && { seq: found.seq, value: found.value.toString() }
  },

  async immutablePut ({ node, value }) {
    const { hash } = await nodes[node].immutablePut(Buffer.from(value))
    return { hash: hex(hash) }
  },

  async immutableGet ({ node, hash }) {
    const found = await nodes[node].immutableGet(bytes(hash))
    return found && found.value.toString()
  },

  async ping ({ node, port }) {
    const { from, to } = await nodes[node].ping({ host: '127.0.0.1', port })
    return { id: from.id && hex(from.id), to: address(to) }
  },

  /** Asks for an answer after `ms` milliseconds; returns how many passed. */
  async delayedPing ({ node, port, ms }) {
    const start = Date.now()
    await nodes[node].delayedPing({ host: '127.0.0.1', port }, ms)
    return { passed: Date.now() - start }
  },

  /** A server on `node`, which echoes what it hears; and a client on the same node that dials `key` and hears its echo. */
  async listen ({ node, seed }) {
    const server = nodes[node].createServer((socket) => socket.on('data', (data) => socket.write(data)).on('error', () => {}))
    await server.listen(keyPair(seed))
  },

  async dial ({ node, key, text }) {
    const socket = nodes[node].connect(bytes(key))
    const echo = await new Promise((resolve, reject) => {
      socket.on('error', reject)
      socket.on('data', (data) => resolve(data.toString()))
      socket.write(text)
    })
    socket.destroy()
    return { echo }
  }
})
