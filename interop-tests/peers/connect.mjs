// HyperDHT peers that connect by key: hyperdht on loopback, steered by the test.
//
// Usage: node connect.mjs TREE; how it is steered: conversation.mjs.

import { createHash } from 'node:crypto'

import { load, serve, tell } from './conversation.mjs'

const DHT = load('hyperdht')
const createTestnet = load('hyperdht/testnet')
const relay = load('blind-relay')

const dhts = []
const servers = []
const streams = []

// Rounds of holepunching wait for this where `held` is asked for.
let gate = Promise.resolve()
let open = () => {}

serve({
  /** Starts a network of its own, and answers with its bootstrap port. */
  async testnet ({ size = 3 }) {
    const testnet = await createTestnet(size)
    return { port: testnet.bootstrap[0].port }
  },

  /** Starts nodes of the network of `port`; those that stay are open. Without `keepAlive` their connections may be silent. */
  async node ({ port, host = '127.0.0.1', bootstrap = '127.0.0.1', stays = false, firewalled = true, keepAlive = true }) {
    const dht = new DHT({
      host,
      bootstrap: [{ host: bootstrap, port }],
      ephemeral: !stays,
      firewalled: stays ? false : firewalled,
      quickFirewall: false,
      connectionKeepAlive: keepAlive ? undefined : false
    })
    await dht.fullyBootstrapped()
    dhts.push(dht)
    return { node: dhts.length - 1, port: dht.address().port, key: dht.defaultKeyPair.publicKey.toString('hex') }
  },

  /** Listens under a fresh key. Each connection becomes a stream and an event. */
  async listen ({ node = 0, relayThrough, lan = true, punch = true, held = false }) {
    const server = dhts[node].createServer({
      relayThrough: relayThrough ? Buffer.from(relayThrough, 'hex') : null,
      shareLocalAddress: lan,
      holepunch: punch ? () => true : false
    })
    if (held) server._onpeerholepunch = behindGate(server._onpeerholepunch.bind(server))
    server.on('connection', (stream) => {
      const { remotePublicKey, rawStream } = stream
      tell({ event: 'connection', stream: add(stream), key: remotePublicKey.toString('hex'), port: rawStream.remotePort })
    })
    const keyPair = DHT.keyPair()
    await server.listen(keyPair)
    servers.push(server)
    const relays = server.relayAddresses.map((address) => address.port)
    return { server: servers.length - 1, key: keyPair.publicKey.toString('hex'), relays }
  },

  /** Runs a blind relay under a fresh key. */
  async relay ({ node = 0 }) {
    const dht = dhts[node]
    const joined = new relay.Server({ createStream: (opts) => dht.createRawStream({ ...opts, framed: true }) })
    const server = dht.createServer({ shareLocalAddress: true }, (stream) => {
      stream.on('error', () => {})
      const session = joined.accept(stream, { id: stream.remotePublicKey })
      session.on('error', () => {})
      session.on('pair', () => tell({ event: 'paired' }))
    })
    const keyPair = DHT.keyPair()
    await server.listen(keyPair)
    return { key: keyPair.publicKey.toString('hex') }
  },

  /** Dials a key, and answers once the stream is open. `through` are the ports of two nodes that pass the handshake on. */
  async connect ({ node = 0, key, relayThrough, lan = true, punch = true, held = false, through }) {
    const dht = dhts[node]
    if (held) holdRounds(dht, DHT.hash(Buffer.from(key, 'hex')))
    const relays = through ? through.map((port) => ({ host: '127.0.0.1', port })) : []
    if (through) sendThrough(dht, DHT.hash(Buffer.from(key, 'hex')), ...relays)
    const stream = dht.connect(Buffer.from(key, 'hex'), {
      relayThrough: relayThrough ? Buffer.from(relayThrough, 'hex') : null,
      localConnection: lan,
      fastOpen: !held && !through,
      relayAddresses: relays.slice(0, 1),
      holepunch: () => punch
    })
    await new Promise((resolve, reject) => stream.once('open', resolve).once('error', reject))
    return { stream: add(stream), port: stream.rawStream.remotePort, key: stream.publicKey.toString('hex') }
  },

  /** Writes `bytes` bytes and answers with their hash. */
  async write ({ stream: id, bytes, seed, chunk = 65536 }) {
    const stream = streams[id]
    const hash = createHash('blake2b512')
    for (let done = 0; done < bytes;) {
      const data = pattern(seed, done, Math.min(chunk, bytes - done))
      hash.update(data)
      done += data.length
      if (!stream.write(data)) await new Promise((resolve) => stream.once('drain', resolve))
    }
    return { hash: hash.digest('hex') }
  },

  end ({ stream }) {
    streams[stream].end()
  },

  /** Reads until `bytes` are here, and answers with their hash. */
  read ({ stream: id, bytes }) {
    const stream = streams[id]
    const hash = createHash('blake2b512')
    let count = 0
    return new Promise((resolve, reject) => {
      stream.on('data', ondata)
      stream.on('close', () => reject(new Error(`closed after ${count} bytes`)))
      function ondata (data) {
        count += data.length
        hash.update(data)
        if (count < bytes) return
        stream.off('data', ondata)
        stream.pause() // else what comes before the next reader is thrown away
        resolve({ bytes: count, hash: hash.digest('hex') })
      }
    })
  },

  /** Ends the stream with an error once nothing has come for so long. */
  timeout ({ stream, ms }) {
    streams[stream].setTimeout(ms)
  },

  /** Closes the gate that held rounds wait at, until `release`. */
  hold () {
    gate = new Promise((resolve) => { open = resolve })
  },

  release () {
    open()
  },

  /** Where the stream goes now, and whether from a socket that was opened to punch. */
  path ({ stream }) {
    const raw = streams[stream].rawStream
    const local = raw.socket.address().port
    const punched = dhts.some((dht) => dht._socketPool.lookup(raw.socket) !== null)
    return { port: raw.remotePort, host: raw.remoteHost, local, punched }
  },

  destroy ({ stream }) {
    streams[stream].destroy()
  },

  async close ({ server }) {
    await servers[server].close()
  },

  async suspend ({ node = 0 }) {
    await dhts[node].suspend()
  },

  async resume ({ node = 0 }) {
    await dhts[node].resume()
  },

  punches ({ node = 0 }) {
    return dhts[node].stats.punches
  }
})

function behindGate (call) {
  return async (...args) => {
    await gate
    return call(...args)
  }
}

/** Holds the rounds of our dials of `target`. */
function holdRounds (dht, target) {
  const router = dht._router
  const direct = router.peerHolepunch.bind(router)
  const held = behindGate(direct)
  router.peerHolepunch = (to, ...args) => (target.equals(to) ? held : direct)(to, ...args)
}

/** Sends the handshakes of our dials of `target` to `first` alone, for it to pass them on to `second`: FROM_SECOND_RELAY. */
function sendThrough (dht, target, first, second) {
  const router = dht._router
  const direct = router.peerHandshake.bind(router)
  router.peerHandshake = (to, opts, node) => {
    if (!target.equals(to)) return direct(to, opts, node)
    if (node.port !== first.port) throw new Error('not by this way')
    return direct(to, { ...opts, relayAddress: second }, node)
  }
}

function add (stream) {
  const id = streams.push(stream) - 1
  stream.on('error', (err) => tell({ event: 'failed', stream: id, code: err.code, reason: err.message }))
  stream.on('close', () => tell({ event: 'closed', stream: id }))
  return id
}

/** Twin of `pattern` in ../tests/it/connect/transfer.rs. */
function pattern (seed, offset, length) {
  const data = Buffer.allocUnsafe(length)
  for (let i = 0; i < length; i++) {
    const at = offset + i
    data[i] = (Math.imul(at >>> 3, 0x9e3779b1) >>> 13) + at + seed
  }
  return data
}
