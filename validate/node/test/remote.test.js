// Key sets that are fetched: the event loop, outages, the end of the process, worker threads.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { Rejection, Validator } from 'chancery'
import { AUDIENCE, Publisher } from './issuer.js'

// Longer than anything here takes; a process that hangs takes for ever.
const HANGS_MS = 20_000

let publisher

before(async () => {
  publisher = await Publisher.start()
})
after(() => publisher.stop())

const settings = (more) => ({ issuer: publisher.url, audience: AUDIENCE, ...more })

test('the key set is found by discovery, and fetched once', async () => {
  const token = await publisher.issuer.token()
  publisher.requests = []
  const validator = new Validator(settings())
  const all = await Promise.all(Array.from({ length: 50 }, () => validator.validate(token)))
  assert(all.every(({ claims }) => claims.iss === publisher.url))
  assert.deepEqual(publisher.requests, ['/.well-known/openid-configuration', '/jwks.json'])
  assert.equal(validator.validateSync(token).kid, publisher.issuer.kid)
  assert.equal(publisher.requests.length, 2)
  const [status] = validator.status().issuers
  assert.equal(status.issuer, publisher.url)
})

test('before the first key set, an answer at once is `keys_unavailable`', async () => {
  const token = await publisher.issuer.token()
  const validator = new Validator(settings())
  assert.throws(
    () => validator.validateSync(token),
    (error) => error instanceof Rejection && error.code === 'keys_unavailable' && error.retryable,
  )
  await validator.ready()
  assert.equal(validator.validateSync(token).claims.iss, publisher.url)
})

test('a URL in place of discovery', async () => {
  publisher.requests = []
  const jwksUri = `${publisher.url}/jwks.json`
  const validator = new Validator({ issuer: publisher.url, audience: AUDIENCE, jwksUri })
  await validator.validate(await publisher.issuer.token())
  assert.deepEqual(publisher.requests, ['/jwks.json'])
})

test('the event loop goes on while a key set is fetched', async () => {
  const token = await publisher.issuer.token()
  // The publisher is on this very event loop: whoever blocks it waits for ever.
  const validator = new Validator(settings())
  let ticks = 0
  const ticking = setInterval(() => ticks++, 1)
  const pending = validator.validate(token)
  await sleep(20)
  await pending
  clearInterval(ticking)
  assert(ticks > 3, `${ticks} ticks`)
})

test('an outage is `keys_unavailable`, which is retryable', async () => {
  publisher.broken = true
  const validator = new Validator(settings())
  const unavailable = { code: 'keys_unavailable', retryable: true }
  const token = await publisher.issuer.token()
  await assert.rejects(validator.validate(token), unavailable)
  await assert.rejects(validator.ready(), unavailable)
  publisher.broken = false
  const [{ state, failures, lastError }] = validator.status().issuers
  assert.equal(state, 'none')
  assert(failures > 0)
  assert.match(lastError, /500/)
})

test('what a log says against a token is a finding, or a rejection', async () => {
  const token = await publisher.issuer.token()
  // This publisher has no log.
  const findings = []
  const onFinding = (finding) => findings.push(finding)
  const reports = new Validator(settings({ log: 'report', onFinding }))
  const { claims } = await reports.validate(token)
  while (findings.length === 0) await sleep(10)
  assert.deepEqual(findings[0].claims, claims)
  assert.equal(findings[0].log.verdict, 'unknown')
  const requires = new Validator(settings({ log: 'require' }))
  await assert.rejects(requires.validate(token), { code: 'log_unknown', retryable: true })
  const told = await requires.explain(token)
  assert.deepEqual([told.steps.at(-1).check, told.rejection.code], ['log', 'log_unknown'])
})

test('a finding that nobody asked for is a warning', async () => {
  const warned = once(process, 'warning')
  const validator = new Validator(settings({ log: 'report' }))
  await validator.validate(await publisher.issuer.token())
  const [warning] = await warned
  assert.deepEqual([warning.name, warning.code], ['ChanceryWarning', 'unknown'])
  assert.match(warning.message, /4711/)
})

test('a publisher that is not there', async () => {
  const validator = new Validator({
    issuer: 'http://127.0.0.1:9',
    audience: AUDIENCE,
    onFinding: () => {},
  })
  const token = await publisher.issuer.token({ iss: 'http://127.0.0.1:9' })
  await assert.rejects(validator.validate(token), { code: 'keys_unavailable' })
})

test('a token that can never be good causes no request', async () => {
  publisher.requests = []
  const validator = new Validator(settings())
  await assert.rejects(validator.validate('a.b.c'), { code: 'malformed_token' })
  assert.deepEqual(publisher.requests, [])
})

// Runs a module in a process of its own. It gets the publisher's URL and a token as arguments.
async function run(source, ...words) {
  const arguments_ = [
    '--expose-gc',
    '--input-type=module',
    '--eval',
    source,
    '--',
    publisher.url,
    ...words,
  ]
  const child = spawn(process.execPath, arguments_, {
    timeout: HANGS_MS,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text))
  const [status, signal] = await once(child, 'close')
  return { status, signal, said }
}

const HEAD = `
  import { Validator } from 'chancery'
  const [url, token] = process.argv.slice(1)
  const settings = { issuer: url, audience: '${AUDIENCE}', bounds: { coolDown: 0.05, minAge: 0.05, maxAge: 0.1, defaultAge: 0.1 } }
`

test('a process ends when its own work is done, whatever is kept fresh', async () => {
  const token = await publisher.issuer.token()
  const done = await run(
    `${HEAD}
    const validator = new Validator({ ...settings, onFinding: () => {} })
    console.log((await validator.validate(token)).claims.sub)
    globalThis.kept = validator`,
    token,
  )
  assert.deepEqual(done, { status: 0, signal: null, said: 'user:4217\n' })
})

test('a process does not end before its answer is there', async () => {
  const token = await publisher.issuer.token()
  const source = `${HEAD} new Validator(settings).validate(token).then(() => console.log('answered'))`
  assert.deepEqual(await run(source, token), { status: 0, signal: null, said: 'answered\n' })
})

test('a process that is ended amid fetches ends', async () => {
  const token = await publisher.issuer.token()
  const source = `${HEAD}
    for (let i = 0; i < 20; i++) new Validator(settings).validate(token).catch(() => {})
    setImmediate(() => process.exit(3))`
  for (let time = 0; time < 5; time++) {
    assert.deepEqual(await run(source, token), { status: 3, signal: null, said: '' })
  }
})

test('worker threads have validators of their own, and may be ended at any time', async () => {
  const token = await publisher.issuer.token()
  const start = (stay) =>
    new Worker(new URL('worker.js', import.meta.url), {
      workerData: { token, settings: settings(), stay },
    })
  const workers = Array.from({ length: 8 }, (_, i) => start(i % 2 === 0))
  const validator = new Validator(settings())
  const ends = workers.map((worker) => once(worker, 'exit'))
  const answers = await Promise.all(workers.map((worker) => once(worker, 'message')))
  for (const [answer] of answers) assert.deepEqual(answer, Array(4).fill('user:4217'))
  assert.equal((await validator.validate(token)).claims.sub, 'user:4217')
  await sleep(30)
  await Promise.all(workers.map((worker) => worker.terminate()))
  await Promise.all(ends)
  // This thread's validators go on, and new threads begin.
  await new Validator(settings()).validate(token)
  const last = start(false)
  assert.deepEqual(await once(last, 'exit'), [0])
})

test('validators that nobody holds are given back', async () => {
  const token = await publisher.issuer.token()
  const done = await run(
    `${HEAD}
    const used = []
    for (let round = 0; round < 6; round++) {
      for (let i = 0; i < 80; i++) {
        const validator = new Validator({ ...settings, cache: 100, onFinding: () => {} })
        if (i % 20 === 0) await validator.validate(token)
      }
      for (let i = 0; i < 5; i++) { gc(); await new Promise(setImmediate) }
      used.push(process.memoryUsage().rss / 2 ** 20)
    }
    console.log(JSON.stringify(used))`,
    token,
  )
  assert.equal(done.status, 0, done.said)
  const used = JSON.parse(done.said)
  assert(used.at(-1) - used[2] < 30, `resident MiB: ${used.map(Math.round)}`)
})
