// A Hyperdrive peer: makes or opens a drive, changes it, moves folders in and out. How it is run: peer.mjs.

import { createHash } from 'node:crypto'
import { decodeKey, hex, load, reach, serve, store, tell } from './peer.mjs'

const Hyperdrive = load('hyperdrive')
const Localdrive = load('localdrive')
const MirrorDrive = load('mirror-drive')
const SubEncoder = load('sub-encoder')

let drive = null

serve({
  /** Opens the drive with this key, or the store's own; encrypted if there is a key for that too. */
  async open ({ key, encryptionKey }) {
    drive = new Hyperdrive(store, decodeKey(key), { encryptionKey: decodeKey(encryptionKey) })
    await drive.ready()
    drive.core.on('append', () => tell({ event: 'version', version: drive.version }))
    return info()
  },

  info,

  /** Waits until the drive has reached `version`. */
  async reach ({ version }) {
    await reach(drive.core, version)
    return info()
  },

  put ({ path, text, base64, executable, metadata }) {
    return drive.put(path, bytes({ text, base64 }), { executable, metadata }).then(info)
  },

  symlink ({ path, target }) {
    return drive.symlink(path, target).then(info)
  },

  del ({ path }) {
    return drive.del(path).then(info)
  },

  /** Stores an entry under a name that is not normalised, as only a hostile writer would. */
  async putRaw ({ path, text, base64, linkname = null }) {
    const blobs = await drive.getBlobs()
    const blob = linkname === null ? await blobs.put(bytes({ text, base64 })) : null
    const entry = { executable: false, linkname, blob, metadata: null }
    await drive.db.put(path, entry, { keyEncoding: new SubEncoder('files', 'utf-8') })
    return info()
  },

  entry ({ path }) {
    return drive.entry(path)
  },

  async get ({ path, start, end }) {
    const value = await drive.get(path, { start, end })
    return value && { base64: value.toString('base64'), sha256: createHash('sha256').update(value).digest('hex') }
  },

  async list ({ folder = '/' }) {
    const entries = []
    for await (const entry of drive.list(folder)) entries.push(entry)
    return entries
  },

  /** Copies a folder into the drive, as `drives mirror` does; what the folder lacks is removed. */
  async import ({ dir }) {
    const mirror = new MirrorDrive(new Localdrive(dir), drive, { batch: true })
    await mirror.done()
    return { ...await info(), ...mirror.count, bytesAdded: mirror.bytesAdded }
  },

  /** Copies the drive to a folder. */
  async export ({ dir }) {
    const mirror = new MirrorDrive(drive, new Localdrive(dir))
    await mirror.done()
    return { ...await info(), ...mirror.count, bytesAdded: mirror.bytesAdded }
  },

  /** Fetches every block of the files below `folder`, without writing files. */
  async download ({ folder = '/' }) {
    const download = await drive.download(folder)
    if (download?.done) await download.done()
    return info()
  }
})

async function info () {
  return {
    id: drive.id,
    key: hex(drive.key),
    contentKey: hex(drive.contentKey),
    version: drive.version,
    writable: drive.writable,
    compat: drive.core.core.compat,
    blobsLength: drive.blobs ? drive.blobs.core.length : null
  }
}

function bytes ({ text, base64 }) {
  return base64 === undefined ? Buffer.from(text ?? '') : Buffer.from(base64, 'base64')
}
