// Runs the programs of the documentation, and validators of other kinds, against a running service
// in development mode.
//
// usage: node examples.js URL DATA_FOLDER CHANCERY

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { Validator } from 'chancery'

const AUDIENCE = 'https://api.example'
// Of watching, in each of a few runs.
const WATCH_SECONDS = 1
const REALMS = {
  consumers: ['ES256', 'RS256', 'PS256', 'Ed25519'],
  organizations: ['Ed25519', 'ES384', 'ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87'],
}

const [url, data, chancery] = process.argv.slice(2)
const issuer = (realm) => `${url}/${realm}`

async function token(realm, ...rest) {
  const words = ['token', '--data', data, '--realm', realm, '--audience', AUDIENCE, ...rest]
  return (await promisify(execFile)(chancery, words)).stdout.trim()
}

async function run(...words) {
  return promisify(execFile)(process.execPath, words).then(
    ({ stdout }) => ({ status: 0, said: stdout }),
    ({ code, stdout, stderr }) => ({ status: code, said: stdout + stderr }),
  )
}

const good = await token('consumers')

// The quick start.
const accepted = await run('quickstart.js', issuer('consumers'), AUDIENCE, good)
assert.equal(accepted.status, 0, accepted.said)
assert.match(accepted.said, /^valid, signed by .+\n\{"/)
const refused = await run('quickstart.js', issuer('organizations'), AUDIENCE, good)
assert.equal(refused.status, 1, refused.said)
assert.match(refused.said, /^unknown_key: /)
console.log('quickstart.js: a token accepted, one of another realm refused')

// Every realm and algorithm, with what the log says about each token.
for (const [realm, algorithms] of Object.entries(REALMS)) {
  // All keys are there before the key set is fetched: the first RSA keys take a while to be made.
  const tokens = new Map()
  for (const alg of algorithms) tokens.set(alg, await token(realm, '--alg', alg))
  const validator = new Validator({ issuer: issuer(realm), audience: AUDIENCE, log: 'require' })
  await validator.ready()
  for (const [alg, text] of tokens) {
    const { algorithm, log, claims } = await patiently(validator, text)
    assert.deepEqual([algorithm, log.verdict, claims.iss], [alg, 'in_log', issuer(realm)])
    console.log(`validator: ${realm} ${alg}: validated, in its log at ${log.index}`)
  }
}

// A token may be there before the log's next checkpoint is.
async function patiently(validator, text) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await validator.validate(text)
    } catch (error) {
      if (!error.retryable || attempt === 50) throw error
      await new Promise((done) => setTimeout(done, 200))
    }
  }
}

// With a trust anchor only keys count that its logs announced.
const { claims } = await new Validator({
  issuer: issuer('consumers'),
  audience: AUDIENCE,
}).validate(good)
const log = claims.jti.split('.')[0]
const vkey = await (await fetch(`${url}/log/${log}/vkey`)).text()
const anchored = (anchor) =>
  new Validator({ issuer: issuer('consumers'), audience: AUDIENCE, anchor }).validate(good)
assert.equal((await anchored(`# the signer's log\n${vkey}`)).claims.jti, claims.jti)
const unannounced = { code: 'key_not_announced' }
await assert.rejects(anchored(verifierKey('example.com/other')), unannounced)
console.log('validator: with a trust anchor: only announced keys count')

// A verifier key of nobody (c2sp.org/signed-note): name, key id, and the type of Ed25519 before it.
function verifierKey(name) {
  const { x } = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
  const key = Buffer.concat([Buffer.from([1]), Buffer.from(x, 'base64url')])
  const id = createHash('sha256').update(`${name}\n`).update(key).digest('hex').slice(0, 8)
  return `${name}+${id}+${key.toString('base64')}`
}

// The service behind Express.
const probe = createServer().listen(0, '127.0.0.1')
await once(probe, 'listening')
const { port } = probe.address()
await promisify(probe.close.bind(probe))()
const app = spawn(process.execPath, ['express-app.js', issuer('consumers'), AUDIENCE, port], {
  stdio: ['ignore', 'pipe', 'inherit'],
})
try {
  const [orders] = await once(createInterface({ input: app.stdout }), 'line')
  const asked = (authorization) => fetch(orders, { headers: { authorization } })
  assert.equal((await fetch(orders)).status, 401)
  assert.equal((await asked('Bearer a.b.c')).status, 401)
  assert.equal((await asked(`Bearer ${good}`)).status, 403)
  const answer = await asked(`Bearer ${await token('consumers', '--scope', 'read')}`)
  assert.deepEqual([answer.status, await answer.json()], [200, { client: 'demo', orders: [] }])
  console.log('express-app.js: a token let through, others refused')
} finally {
  app.kill()
}

// The script that watches rotations tells right from wrong.
async function watch(...lines) {
  const words = ['watch.js', issuer('consumers'), AUDIENCE, WATCH_SECONDS, '-']
  const watcher = spawn(process.execPath, words)
  let said = ''
  for (const stream of [watcher.stdout, watcher.stderr]) stream.on('data', (text) => (said += text))
  watcher.stdin.end(lines.map((line) => `${line}\n`).join(''))
  const [status] = await once(watcher, 'close')
  return { status, said }
}
const forged = `${good.slice(0, -20)}${'A'.repeat(20)}`
const right = await watch(good, `!0 ${forged}`, `!9999999999 ${good}`)
assert.equal(right.status, 0, right.said)
assert.match(right.said, /^3 tokens under 1 keys: .* 0 of these wrong; 0 findings\n/)
for (const wrong of [[forged], [`!0 ${good}`], []]) assert.equal((await watch(...wrong)).status, 1)
console.log('watch.js: tells right from wrong')
