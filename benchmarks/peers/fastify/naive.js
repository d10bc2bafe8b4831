// The design that this project ports, as one writes it with Fastify: a statement per message, and a
// Map of who is connected. The token is verified before the upgrade; messages are answered after
// their commit. Settings come from DATABASE_URL, JWT_SECRET and PORT.

import jwt from '@fastify/jwt'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import pg from 'pg'

import { isSend, MAX_FRAME_BYTES, parse } from './frames.js'

const INSERT = `INSERT INTO messages (id, sender_id, recipient_id, encrypted_content)
  VALUES ($1, $2, $3, $4) RETURNING created_at`
const DELIVERED = 'UPDATE messages SET delivered_at = now() WHERE id = $1'
const BACKLOG = `SELECT id, sender_id, encrypted_content, created_at FROM messages
  WHERE recipient_id = $1 AND delivered_at IS NULL ORDER BY created_at`
const ALL_DELIVERED = 'UPDATE messages SET delivered_at = now() WHERE id = ANY($1)'

const connections = new Map()
let seq = 0

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
pool.on('error', (error) => console.error('idle database connection:', error.message))

function sendMessage (socket, row, recipient) {
  socket.send(JSON.stringify({
    type: 'message',
    seq: ++seq,
    id: row.id,
    sender: row.sender_id,
    recipient,
    encrypted_content: row.encrypted_content,
    created_at: row.created_at
  }))
}

// Registered before the read, so that a message in between may come twice but is not missed.
async function welcome (socket, user) {
  connections.set(user, socket)
  const { rows } = await pool.query(BACKLOG, [user])
  socket.send(JSON.stringify({ type: 'hello', user_id: user }))
  if (rows.length === 0) return
  for (const row of rows) sendMessage(socket, row, user)
  await pool.query(ALL_DELIVERED, [rows.map((row) => row.id)])
}

async function takeSend (socket, user, { id, to, encrypted_content: content }) {
  const { rows } = await pool.query(INSERT, [id, user, to, content])
  const createdAt = rows[0].created_at
  socket.send(JSON.stringify({ type: 'accepted', id, created_at: createdAt }))
  const recipient = connections.get(to)
  if (recipient?.readyState !== socket.OPEN) return
  const row = { id, sender_id: user, encrypted_content: content, created_at: createdAt }
  sendMessage(recipient, row, to)
  await pool.query(DELIVERED, [id])
}

function refuse (socket, ref, code) {
  socket.send(JSON.stringify({ type: 'error', ref, code }))
}

async function takeFrame (socket, user, data) {
  const frame = parse(data)
  if (frame?.type === 'ack') return
  if (frame?.type !== 'send' || !isSend(frame)) return refuse(socket, null, 'bad_request')
  try {
    await takeSend(socket, user, frame)
  } catch (error) {
    refuse(socket, frame.id, error.code === '23505' ? 'id_conflict' : 'unavailable')
  }
}

function connected (socket, request) {
  const user = request.user.sub
  socket.on('message', (data) => takeFrame(socket, user, data))
  socket.on('close', () => {
    if (connections.get(user) === socket) connections.delete(user)
  })
  return welcome(socket, user)
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
