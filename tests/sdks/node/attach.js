// The official Node SDK against a simulator of its own, whose clock it sets: node attach.js HOST:PORT.
//
// Prints a line for each check; the exit code is 0 only if all pass.
"use strict"

const http = require("node:http")
const net = require("node:net")
const { createRequire } = require("node:module")

// The package is in a cache folder outside of the tree: `run` says where.
const { CommonClient } = createRequire(process.env.SDK_HOME + "/")("tencentcloud-sdk-nodejs-common")

const [endpoint] = process.argv.slice(2)
const [id, key, session] = ["AKIDEXAMPLE", "SECRETEXAMPLE", "1326515201117065216"]
const phones = ["phone-node-1", "phone-node-é"]
let failed = false

// Makes one call; type is 1 to attach, 2 to detach.
function switchSlaves(secretId, secretKey, type, server = endpoint) {
  // This SDK signs the host without its port but sends it with one, and takes the service's name from the endpoint's first label: both
  // are right for the real endpoint alone. So it keeps that one, and an agent leads its connections here.
  const agent = new http.Agent()
  agent.createConnection = () => net.connect(Number(server.split(":")[1]), server.split(":")[0])
  const httpProfile = { protocol: "http://", endpoint: "gs.tencentcloudapi.com", agent }
  const options = { credential: { secretId, secretKey }, region: "ap-guangzhou", profile: { httpProfile } }
  const client = new CommonClient("gs.tencentcloudapi.com", "2019-11-18", options)
  return client.request("SwitchCloudPhoneMultipleStreamSessionSlaves", { SessionId: session, Type: type, SlaveInstanceIds: phones })
}

// Alters the body after it was signed, as something on the way might.
async function throughSomethingThatChanges(from, to, use) {
  const [host, port] = endpoint.split(":")
  const proxy = net.createServer((client) => {
    const server = net.connect(Number(port), host)
    client.on("data", (bytes) => server.write(Buffer.from(bytes.toString("latin1").replace(from, to), "latin1")))
    client.on("end", () => server.end())
    server.pipe(client)
    for (const socket of [client, server]) socket.on("error", () => (client.destroy(), server.destroy()))
  })
  await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening))
  try {
    return await use(`127.0.0.1:${proxy.address().port}`)
  } finally {
    proxy.close()
  }
}

function setClock(seconds) {
  return fetch(`http://${endpoint}/admin/faults`, { method: "PUT", body: JSON.stringify({ clockOffsetSeconds: seconds }) })
}

function report(name, ok, seen) {
  failed ||= !ok
  console.log(`${ok ? "ok" : "FAILED"}: ${name}: ${seen}`)
}

async function succeeds(name, type) {
  const answer = await switchSlaves(id, key, type).catch((error) => error)
  report(name, JSON.stringify(answer.SuccessInstanceIds) === JSON.stringify(phones), answer instanceof Error ? answer : JSON.stringify(answer))
}

async function isRefused(name, code, call) {
  const answer = await call().catch((error) => error)
  const ok = answer?.constructor?.name === "TencentCloudSDKHttpException" && answer.code === code && Boolean(answer.requestId)
  report(name, ok, `${answer?.constructor?.name} ${answer?.code} ${answer?.message}`)
}

async function main() {
  await succeeds("attach", 1)
  await succeeds("detach", 2)
  await isRefused("wrong key", "AuthFailure.SignatureFailure", () => switchSlaves(id, "WRONG", 1))
  await isRefused("unknown key", "AuthFailure.SecretIdNotFound", () => switchSlaves("AKIDSTRANGER", key, 1))
  await throughSomethingThatChanges("phone-node-1", "phone-node-2", (changing) =>
    isRefused("changed body", "AuthFailure.SignatureFailure", () => switchSlaves(id, key, 1, changing)),
  )
  await setClock(600)
  await isRefused("old timestamp", "AuthFailure.SignatureExpire", () => switchSlaves(id, key, 1))
  await setClock(0)
}

main().then(
  () => process.exit(failed ? 1 : 0),
  (error) => {
    console.error(error)
    process.exit(1)
  },
)
