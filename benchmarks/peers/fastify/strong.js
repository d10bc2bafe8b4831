// The Fastify peer with group commit, and with what else makes Node fast: one prepared statement
// for a batch of messages, one for a batch of delivery marks; JSON by hand; one write to a socket for
// all frames of a batch.

import jwt from '@fastify/jwt'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import pg from 'pg'

import { Batches } from './batches.js'
import { isSend, MAX_FRAME_BYTES, parse } from './frames.js'

// What was fastest for 32 senders with 8 unanswered messages each, of 256 bytes and of 4 KiB.
const LIMITS = { limit: 128, writers: 2 }

// created_at grows within a batch, so that a backlog keeps the order.
const INSERT = {
  name: 'insert',
  text: `INSERT INTO messages (id, sender_id, recipient_id, encrypted_content, created_at)
    SELECT id, sender_id, recipient_id, content,
      timestamptz 'epoch' + ($5::bigint + n) * interval '1 microsecond'
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
      WITH ORDINALITY AS batch (id, sender_id, recipient_id, content, n)`
}
const DELIVERED = {
  name: 'delivered',
  text: 'UPDATE messages SET delivered_at = now() WHERE id = ANY ($1::uuid[])'
}
const BACKLOG = {
  name: 'backlog',
  text: `SELECT id, sender_id, encrypted_content, created_at FROM messages
    WHERE recipient_id = $1 AND delivered_at IS NULL ORDER BY created_at`
}

const connections = new Map()
const corked = new Set()
let seq = 0
let newestMicroseconds = 0

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
pool.on('error', (error) => console.error('idle database connection:', error.message))

class Connection {
  constructor (socket, stream, user) {
    this.socket = socket
    this.stream = stream
    this.user = user
    this.userJson = JSON.stringify(user)
  }

  write (text) {
    if (!corked.has(this.stream)) {
      this.stream.cork()
      corked.add(this.stream)
    }
    this.socket.send(text)
  }
}

function flush () {
  for (const stream of corked) stream.uncork()
  corked.clear()
}

function writeMessage (recipient, id, senderJson, content, createdAt) {
  recipient.write(`{"type":"message","seq":${++seq},"id":"${id}","sender":${senderJson},` +
    `"recipient":${recipient.userJson},"encrypted_content":"${content}","created_at":"${createdAt}"}`)
}

// `text[]` in PostgreSQL's binary format, which spares it the parsing: lengths and bytes after a
// head of one dimension, no nulls, elements of type 25, their number, and 1 as the first index.
function textArray (texts) {
  const sizes = texts.map((text) => Buffer.byteLength(text))
  const array = Buffer.allocUnsafe(sizes.reduce((sum, size) => sum + 4 + size, 20))
  let at = 0
  for (const number of [1, 0, 25, texts.length, 1]) at = array.writeInt32BE(number, at)
  texts.forEach((text, i) => {
    at = array.writeInt32BE(sizes[i], at)
    at += array.write(text, at)
  })
  return array
}

// Short, and free of anything that an array literal would have to escape.
const uuidArray = (ids) => `{${ids.join(',')}}`

async function insert (batch) {
  const start = Math.max(Date.now() * 1000, newestMicroseconds)
  newestMicroseconds = start + batch.length
  await pool.query(INSERT, [
    uuidArray(batch.map((send) => send.id)),
    textArray(batch.map((send) => send.sender.user)),
    textArray(batch.map((send) => send.to)),
    textArray(batch.map((send) => send.content)),
    start
  ])
  return new Date(start / 1000).toISOString()
}

function answer (batch, createdAt) {
  for (const { id, sender, to, content } of batch) {
    sender.write(`{"type":"accepted","id":"${id}","created_at":"${createdAt}"}`)
    const recipient = connections.get(to)
    if (recipient === undefined) continue
    writeMessage(recipient, id, sender.userJson, content, createdAt)
    marks.add(id)
  }
  flush()
}

// One bad row fails its batch: then each row is tried alone.
async function storeEach (batch) {
  for (const send of batch) {
    try {
      answer([send], await insert([send]))
    } catch (error) {
      refuse(send.sender, send.id, error.code === '23505' ? 'id_conflict' : 'unavailable')
    }
  }
}

async function store (batch, previous) {
  const stored = await insert(batch).catch(() => null)
  await previous
  if (stored === null) return storeEach(batch)
  answer(batch, stored)
}

async function mark (ids) {
  try {
    await pool.query(DELIVERED, [uuidArray(ids)])
  } catch (error) {
    console.error('not marked as delivered:', error.message)
  }
}

const sends = new Batches(store, LIMITS)
const marks = new Batches(mark, LIMITS)

function refuse (connection, ref, code) {
  connection.socket.send(JSON.stringify({ type: 'error', ref, code }))
}

function takeFrame (connection, data) {
  const frame = parse(data)
  if (frame?.type === 'ack') return
  if (frame?.type !== 'send' || !isSend(frame)) return refuse(connection, null, 'bad_request')
  sends.add({ id: frame.id, sender: connection, to: frame.to, content: frame.encrypted_content })
}

// Registered before the read, so that a message in between may come twice but is not missed.
async function welcome (connection) {
  connections.set(connection.user, connection)
  const { rows } = await pool.query(BACKLOG, [connection.user])
  connection.write(`{"type":"hello","user_id":${connection.userJson}}`)
  for (const row of rows) {
    const sender = JSON.stringify(row.sender_id)
    writeMessage(connection, row.id, sender, row.encrypted_content, row.created_at.toISOString())
    marks.add(row.id)
  }
  flush()
}

function connected (socket, request) {
  const connection = new Connection(socket, request.raw.socket, request.user.sub)
  socket.on('message', (data) => takeFrame(connection, data))
  socket.on('close', () => {
    if (connections.get(connection.user) === connection) connections.delete(connection.user)
  })
  return welcome(connection)
}

// Before the upgrade. The plugin would answer some bad tokens with 400.
async function requireToken (request, reply) {
  try {
    await request.jwtVerify()
  } catch {
    return reply.code(401).send({ error: 'unauthorized' })
  }
}

const app = Fastify({ logger: false })
await app.register(jwt, {
  secret: process.env.JWT_SECRET,
  verify: { algorithms: ['HS256'], extractToken: (request) => request.query.token }
})
await app.register(websocket, { options: { maxPayload: MAX_FRAME_BYTES } })
app.get('/api/ws', { websocket: true, onRequest: requireToken }, connected)
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
