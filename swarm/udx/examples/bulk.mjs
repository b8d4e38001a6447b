// The twin of bulk.rs with udx-native.
//
// Usage: node bulk.mjs TREE receive STREAMS
//        node bulk.mjs TREE send PORT STREAMS MEGABYTES
//   TREE   folder with node_modules (interop-tests/vectors)

import { createRequire } from 'node:module'
import path from 'node:path'

const [tree, mode, ...args] = process.argv.slice(2)
const UDX = createRequire(path.resolve(tree, 'package.json'))('udx-native')

const SENDER = 1000
const RECEIVER = 1000000
const CHUNK = 65536

const udx = new UDX()
const socket = udx.createSocket()
socket.bind(0, '127.0.0.1')

if (mode === 'receive') receive(Number(args[0]))
else send(Number(args[0]), Number(args[1]), Number(args[2]))

function receive (count) {
  let start = 0
  let bytes = 0
  let open = count
  for (let i = 0; i < count; i++) {
    const stream = udx.createStream(RECEIVER + i, {
      firewall (from, port, host) {
        if (!stream.connected) stream.connect(from, SENDER + i, port, host)
        return false
      }
    })
    stream.on('data', (data) => {
      start ||= performance.now()
      bytes += data.byteLength
    })
    stream.on('end', () => {
      stream.end()
      if (--open === 0) console.log((bytes / (performance.now() - start) / 1000).toFixed(1) + ' MB/s')
    })
    stream.on('close', () => { if (open === 0) process.exit(0) })
  }
  console.log(socket.address().port)
}

function send (port, count, megabytes) {
  const chunk = Buffer.alloc(CHUNK, 7)
  let open = count
  for (let i = 0; i < count; i++) {
    let left = Math.floor(megabytes * 1e6 / count)
    const stream = udx.createStream(SENDER + i)
    stream.connect(socket, RECEIVER + i, port, '127.0.0.1')
    stream.on('data', () => {})
    stream.on('close', () => { if (--open === 0) process.exit(0) })
    const write = () => {
      while (left > 0) {
        const len = Math.min(left, CHUNK)
        left -= len
        if (!stream.write(chunk.subarray(0, len))) return stream.once('drain', write)
      }
      stream.end()
    }
    write()
  }
}
