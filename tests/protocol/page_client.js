// A client of a run, written from docs/protocol.md alone: it reads the page's tables, and checks every
// message against them. Usage: node page_client.js CONNECTION_FILE PAGE
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import assert from "node:assert/strict"
import { readPage } from "./protocol_page.js"

const require = createRequire(import.meta.url) // unlike import, it honors NODE_PATH
const zmq = require("zeromq")
const { decode, encode } = require("@msgpack/msgpack")

const WAIT_SECONDS = 60
const [file, pageFile] = process.argv.slice(2)
const page = readPage(readFileSync(pageFile, "utf8"))
const connection = JSON.parse(readFileSync(file, "utf8"))

const ARRAYS = { f4: [Float32Array, 4], f2: [Uint16Array, 2], u1: [Uint8Array, 1] }

/** Replace the placeholders of arrays by their numbers. */
function insertArrays(value, buffers) {
  if (Array.isArray(value)) return value.map((one) => insertArrays(one, buffers))
  if (value === null || typeof value !== "object") return value
  if ("shape" in value && "frame" in value) {
    const [kind, size] = ARRAYS[value.dtype]
    const buffer = buffers[value.frame]
    const bytes = buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength)
    const data = new kind(bytes)
    assert.equal(data.length, value.shape.reduce((a, b) => a * b, 1))
    assert.equal(bytes.byteLength, data.length * size)
    return { shape: value.shape, data }
  }
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, insertArrays(v, buffers)]))
}

function receive([topic, header, ...buffers]) {
  const name = topic.toString()
  const message = insertArrays(decode(header), buffers)
  page.check(name, message)
  return { topic: name, message }
}

function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in time`)), 1000 * WAIT_SECONDS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

class Client {
  constructor() {
    const options = {
      curvePublicKey: connection.public_key,
      curveSecretKey: connection.secret_key,
      curveServerKey: connection.server_key,
      linger: 0,
    }
    this.telemetry = new zmq.Subscriber(options)
    this.requests = new zmq.Dealer(options)
    const { telemetry_endpoint: remote, request_endpoint: remoteRequests } = connection
    const [telemetry, requests] = connection.local_endpoints ?? [remote, remoteRequests]
    this.telemetry.connect(telemetry)
    this.telemetry.subscribe()
    this.requests.connect(requests)
    this.count = 0
  }

  /** Send a request and return its reply. */
  async request(type, fields, envelope = {}) {
    const id = envelope.id ?? `request ${(this.count += 1)}`
    page.checkRequest(type, fields)
    await this.send({ id, body: { type, ...fields }, ...envelope })
    return await this.reply(id)
  }

  async send(header) {
    await this.requests.send(["request", encode(header)])
  }

  async reply(id) {
    for (;;) {
      const reply = receive(await within(this.requests.receive(), `reply to ${id}`))
      if (reply.message.id === id) return reply
    }
  }

  /** Return the next telemetry for which `isWanted(topic, message)` is true. */
  async next(isWanted) {
    for (;;) {
      const found = receive(await within(this.telemetry.receive(), "telemetry"))
      if (isWanted(found.topic, found.message)) return found.message
    }
  }

  close() {
    this.telemetry.close()
    this.requests.close()
  }
}

async function attach(client) {
  await client.send({ id: "state", body: { type: "ControlRun", action: "send_state" } })
  const state = {}
  while (!state.structure || !state.status) {
    const { topic, message } = receive(await within(client.requests.receive(), "the state"))
    state[topic] = message
  }
  return state.structure
}

async function monitor(client, structure) {
  const filters = structure.layers.reduce((sum, layer) => sum + layer.out_channels, 0)
  let last = -1
  for (let i = 0; i < 5; i += 1) {
    const snapshot = await client.next((topic) => topic === "snapshot")
    assert.deepEqual(snapshot.values.shape, [snapshot.statistics.length, filters])
    assert.ok(snapshot.step > last)
    last = snapshot.step
  }
}

async function edit(client, structure) {
  const layer = structure.layers[0].name
  const add = { layer, count: 2 }
  const { version } = structure
  const planned = await client.request("AddFilters", add, { version, dry_run: true })
  assert.equal(planned.topic, "planned")
  const applied = await client.request("AddFilters", add, { version })
  assert.equal(applied.topic, "applied")
  const again = await client.request("AddFilters", add, { version, id: applied.message.id })
  assert.deepEqual(again, applied)
  assert.deepEqual(applied.message.plan, planned.message.plan)
  const edited = await client.next((topic, one) => topic === "structure" && one.version > version)
  assert.equal(edited.layers[0].out_channels, structure.layers[0].out_channels + 2)
  assert.equal(edited.version, applied.message.version)
  return edited
}

async function expectRefusals(client, structure) {
  const layer = structure.layers[0].name
  const stale = await client.request("AddFilters", { layer }, { version: structure.version - 1 })
  const invalid = await client.request("RemoveFilters", { layer, filters: [9999] })
  await client.send({ id: "unknown", body: { type: "AddFilters", layer, force: true } })
  const unknown = await client.reply("unknown")
  await client.send({ id: "protocol", protocol: 999, body: { type: "Undo" } })
  const protocol = await client.reply("protocol")
  await client.send({ id: "envelope", dryrun: true, body: { type: "Undo" } })
  const envelope = await client.reply("envelope")
  const dry = await client.request("ControlRun", { action: "pause" }, { dry_run: true })
  for (const { topic, message } of [stale, invalid, unknown, protocol, envelope, dry]) {
    assert.equal(topic, "refused")
    assert.ok(message.reason)
  }
}

async function command(client, structure) {
  const layer = structure.layers[0].name
  const set = { optimizer: 0, group: 0, name: "lr", value: 0.01 }
  assert.equal((await client.request("SetHyperparameter", set)).topic, "done")
  assert.equal((await client.request("ControlRun", { action: "pause" })).topic, "done")
  await client.next((topic, one) => topic === "status" && one.state === "paused")
  assert.equal((await client.request("ControlRun", { action: "resume" })).topic, "done")
  assert.equal((await client.request("InspectLayer", { layer })).topic, "done")
  await client.next((topic, one) => topic === "layer_detail" && one.layer === layer)
  assert.equal((await client.request("InspectFilter", { layer, filter: 0 })).topic, "done")
  await client.next((topic, one) => topic === "filter_inspection" && one.filter === 0)
  assert.equal((await client.request("Undo", {})).topic, "applied")
}

page.check("connection", connection)
const client = new Client()
const structure = await attach(client)
await monitor(client, structure)
const edited = await edit(client, structure)
await expectRefusals(client, edited)
await command(client, edited)
client.close()
console.log(`checked ${[...page.checked].sort().join(" ")}`)
