// hyperdht's end of the benchmark of the DHT: a whole network in this process.
//
// Usage: node dht.mjs TREE; how it is steered: ../../interop-tests/peers/conversation.mjs.
// Every command has a twin in ../src/dht_worker.rs that does the same with ferrocore.

import { createHash } from 'node:crypto'

import { load, serve } from '../../interop-tests/peers/conversation.mjs'

const DHT = load('hyperdht')

const host = '127.0.0.1'
const nodes = []
const held = []

serve({
  /** Starts `nodes` nodes that stay, `atOnce` at a time; answers how long it took and by how much the process grew. */
  async network ({ nodes: count, at_once: atOnce }) {
    const before = process.memoryUsage().rss
    const start = performance.now()
    await node({ bootstrap: [] })
    while (nodes.length < count) {
      const missing = Math.min(atOnce, count - nodes.length)
      await Promise.all(Array.from({ length: missing }, () => node({})))
    }
    return { seconds: seconds(start), bytes: process.memoryUsage().rss - before }
  },

  /** Announces peers under `topics` topics, then looks these up `count` times, `atOnce` at a time, each to its end. */
  async lookups ({ topics, count, at_once: atOnce }) {
    const [announcer, client] = await Promise.all([guest(), guest()])
    for (let i = 0; i < topics; i++) {
      await announcer.announce(topic(i), DHT.keyPair(topic(i)), []).finished()
    }
    let found = 0
    const seconds = await often(count, atOnce, async (i) => {
      let isFound = false
      for await (const { peers } of client.lookup(topic(i % topics))) isFound ||= peers.length > 0
      found += isFound
    })
    await Promise.all([announcer.destroy(), client.destroy()])
    return { seconds, found }
  },

  /** Dials `count` times, `atOnce` at a time, each of `peers` clients each of as many servers in turn; each connection
   * takes a byte there and back. */
  async connects ({ peers, count, at_once: atOnce }) {
    const pair = await ends(peers)
    let found = 0
    const seconds = await often(count, atOnce, async (i) => {
      const connection = await dial(...pair(i))
      connection.destroy()
      found++
    })
    return { seconds, found }
  },

  /** Makes connections likewise and keeps them for `seconds`; answers by how much the process has grown, and what
   * processor time it has spent on them since the last was made. */
  async idle ({ peers, count, at_once: atOnce, seconds }) {
    const pair = await ends(peers)
    const before = process.memoryUsage().rss
    const made = { seconds: 0, found: 0 }
    let ended = 0
    made.seconds = await often(count, atOnce, async (i) => {
      const connection = await dial(...pair(i))
      connection.on('close', () => ended++)
      held.push(connection)
      made.found++
    })
    const spent = process.cpuUsage()
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds))
    const { user, system } = process.cpuUsage(spent)
    return { made, bytes: process.memoryUsage().rss - before, processor: (user + system) / 1e6, ended }
  }
})

/** Starts as many servers as clients; answers who dials whom: every client meets every server. */
async function ends (count) {
  const clients = []
  const keys = []
  for (let i = 0; i < count; i++) {
    clients.push(await guest())
    const server = (await guest()).createServer((connection) => {
      connection.on('error', () => {})
      connection.on('data', (data) => connection.write(data))
      connection.on('end', () => connection.end())
    })
    await server.listen(DHT.keyPair())
    keys.push(server.publicKey)
  }
  return (i) => [clients[i % count], keys[(i + Math.floor(i / count)) % count]]
}

async function dial (client, key) {
  const connection = client.connect(key)
  await new Promise((resolve, reject) => {
    connection.once('error', reject)
    connection.once('data', resolve)
    connection.write(Buffer.from('x'))
  })
  connection.on('error', () => {})
  return connection
}

async function node ({ bootstrap = [{ host, port: nodes[0]?.address().port }] }) {
  const dht = new DHT({ host, bootstrap, ephemeral: false, firewalled: false })
  await dht.fullyBootstrapped()
  nodes.push(dht)
}

async function guest () {
  const dht = new DHT({ host, bootstrap: [{ host, port: nodes[0].address().port }], ephemeral: true })
  await dht.fullyBootstrapped()
  return dht
}

function topic (number) {
  return createHash('sha256').update(String(number)).digest()
}

async function often (count, atOnce, act) {
  const start = performance.now()
  let next = 0
  const worker = async () => {
    while (next < count) await act(next++)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return seconds(start)
}

function seconds (start) {
  return (performance.now() - start) / 1000
}
