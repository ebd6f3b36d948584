// Validations a second of one core: this package beside `jose` and `fast-jwt`, in one run.
//
// usage: node bench.js [SECONDS_PER_ALGORITHM] [--json]
//
// Every library validates the same token of twelve claims with a key that it has at hand, and is
// asked for the same demands: signature, `iss`, `aud`, `exp` and `nbf`, and `typ` where it knows it.
// All take turns in short slices, so that whatever else the machine does meets all of them. What is
// counted is the processor time of the process, all its threads, because jose verifies on others;
// the median of the slices is shown.

import { createPublicKey } from 'node:crypto'
import { Validator } from 'chancery'
import { createVerifier } from 'fast-jwt'
import * as jose from 'jose'
import { AUDIENCE, ISSUER, Issuer } from './issuer.js'

const ALGORITHMS = ['ES256', 'Ed25519', 'RS256']
const DEFAULT_SECONDS = 6
// Of wall time; long enough to be measured, short against what disturbs.
const SLICE_MS = 25
// Operations between two looks at the clock.
const BATCH = 64
// Different tokens, so that no cache holds the one that was seen last only.
const TOKENS = 512
const CACHE = 2048

const seconds = Number(
  process.argv.slice(2).find((word) => !word.startsWith('-')) ?? DEFAULT_SECONDS,
)
const results = []
for (const alg of ALGORITHMS) results.push(await compare(alg))
if (process.argv.includes('--json')) console.log(JSON.stringify(results))
else for (const result of results) show(result)

async function compare(alg) {
  const issuer = await Issuer.make({ alg })
  const subjects = await contestants(issuer)
  const names = new Set(subjects.map(({ calls }) => calls))
  const tokens = new Map()
  for (const name of names) tokens.set(name, await several(issuer, { alg: name }))
  for (const subject of subjects) await check(subject, issuer, tokens.get(subject.calls))
  const until = performance.now() + seconds * 1000
  while (performance.now() < until) {
    for (const subject of subjects) await slice(subject, tokens.get(subject.calls))
  }
  const rates = subjects.map(({ name, rates }) => [name, median(rates)])
  return { alg, rates: Object.fromEntries(rates) }
}

async function several(issuer, header) {
  const token = (i) => issuer.token({ sub: `user:${i}` }, header)
  return Promise.all(Array.from({ length: TOKENS }, (_, i) => token(i)))
}

// Libraries are asked as their manuals say. `claims` finds the claims in what they answer, and `calls`
// is what their tokens call the algorithm.
async function contestants(issuer) {
  const { alg } = issuer
  const key = createPublicKey({ key: issuer.key, format: 'jwk' })
  const expected = { issuer: ISSUER, audience: AUDIENCE, typ: 'at+jwt', algorithms: [alg] }
  const imported = await jose.importJWK(issuer.key, alg)
  const keys = jose.createLocalJWKSet(issuer.jwks)
  // RFC 9864 calls it Ed25519; fast-jwt knows the older name alone.
  const older = alg === 'Ed25519' ? 'EdDSA' : alg
  const fast = (cache) =>
    createVerifier({
      key: key.export({ type: 'spki', format: 'pem' }),
      algorithms: [older],
      allowedIss: ISSUER,
      allowedAud: AUDIENCE,
      checkTyp: 'at+jwt',
      cache,
    })
  const plain = new Validator(issuer.settings())
  const cached = new Validator(issuer.settings({ cache: CACHE }))
  const subject = (name, validate, claims, { calls = alg, waits = false } = {}) => {
    return { name, validate, claims, calls, waits, count: 0, rates: [] }
  }
  const ours = (answer) => answer.claims
  const joses = (answer) => answer.payload
  const itself = (answer) => answer
  const waits = true
  return [
    subject('chancery', (token) => plain.validate(token), ours, { waits }),
    subject('chancery, at once', (token) => plain.validateSync(token), ours),
    subject('jose', (token) => jose.jwtVerify(token, keys, expected), joses, { waits }),
    subject('jose, one key', (token) => jose.jwtVerify(token, imported, expected), joses, {
      waits,
    }),
    subject('fast-jwt', fast(false), itself, { calls: older }),
    subject('chancery, cached', (token) => cached.validate(token), ours, { waits }),
    subject('chancery, cached, at once', (token) => cached.validateSync(token), ours),
    subject('fast-jwt, cached', fast(CACHE), itself, { calls: older }),
  ]
}

// Whoever does not refuse a forged token, another audience or an expired one, is not measured.
async function check({ name, validate, claims, calls }, issuer, tokens) {
  const { sub } = claims(await validate(tokens[7]))
  if (sub !== 'user:7') throw new Error(`${name} answers \`${sub}\``)
  const [header, payload, signature] = tokens[7].split('.')
  const bytes = Buffer.from(signature, 'base64url')
  bytes[20] ^= 1
  const other = (changes) => issuer.token(changes, { alg: calls })
  const bad = [
    `${header}.${payload}.${bytes.toString('base64url')}`,
    await other({ aud: 'https://orders.example' }),
    await other({ iss: 'https://other.example' }),
    await other({ exp: Math.floor(Date.now() / 1000) - 60 }),
  ]
  for (const token of bad) {
    const refused = await Promise.resolve(token)
      .then(validate)
      .then(
        () => false,
        () => true,
      )
    if (!refused) throw new Error(`${name} accepts a bad token: ${token}`)
  }
}

async function slice(subject, tokens) {
  const until = performance.now() + SLICE_MS
  const [begun, before] = [process.cpuUsage(), subject.count]
  const batch = subject.waits ? waiting : atOnce
  while (performance.now() < until) {
    await batch(subject, tokens)
    subject.count += BATCH
  }
  const { user, system } = process.cpuUsage(begun)
  subject.rates.push(((subject.count - before) * 1e6) / (user + system))
}

function atOnce({ validate, claims, count }, tokens) {
  for (let i = 0; i < BATCH; i++) used(claims(validate(tokens[(count + i) % TOKENS])))
}

async function waiting({ validate, claims, count }, tokens) {
  for (let i = 0; i < BATCH; i++) used(claims(await validate(tokens[(count + i) % TOKENS])))
}

function median(numbers) {
  return numbers.sort((a, b) => a - b)[numbers.length >> 1]
}

function used({ sub }) {
  if (sub.length < 6) throw new Error('no claims')
}

function show({ alg, rates }) {
  console.log(`\n${alg}: validations a second of processor time`)
  for (const [name, rate] of Object.entries(rates)) {
    console.log(`  ${name.padEnd(28)}${Math.round(rate).toLocaleString('en').padStart(12)}`)
  }
  const of = (peer) => (rates.chancery / rates[peer]).toFixed(2)
  console.log(
    `  chancery is ${of('jose')} times jose, ${of('fast-jwt')} times fast-jwt without cache`,
  )
}
