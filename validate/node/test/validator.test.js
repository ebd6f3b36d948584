// What a token comes to in JavaScript, and what strange input does.

import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { before, test } from 'node:test'
import { CODES, Rejection, Validator } from 'chancery'
import { AUDIENCE, ISSUER, Issuer, seconds } from './issuer.js'

const require = createRequire(import.meta.url)
let issuer
let validator

before(async () => {
  issuer = await Issuer.make()
  validator = new Validator(issuer.settings())
})

async function code(promise) {
  return promise.then(
    () => 'valid',
    (error) => {
      assert(error instanceof Rejection, error)
      return error.code
    },
  )
}

test('an accepted token is its claims, its key and its algorithm', async () => {
  const iat = seconds() - 10
  const accepted = await validator.validate(await issuer.token({ iat, nbf: undefined }))
  assert.deepEqual(Object.keys(accepted), ['claims', 'kid', 'algorithm', 'log'])
  assert.deepEqual([accepted.kid, accepted.algorithm], [issuer.kid, 'ES256'])
  assert.equal(accepted.log, null)
  const { claims } = accepted
  assert.equal(Object.getPrototypeOf(claims), Object.prototype)
  assert.deepEqual([claims.iss, claims.sub, claims.aud], [ISSUER, 'user:4217', AUDIENCE])
  assert.deepEqual([claims.iat, claims.nbf], [iat, undefined])
  assert.deepEqual([claims.roles, claims.cnf], [['buyer', 'reviewer'], { jkt: issuer.kid }])
})

test('every algorithm of the runtime, at once and by a promise', async () => {
  for (const alg of ['ES256', 'ES384', 'RS256', 'PS256', 'Ed25519']) {
    const other = await Issuer.make({ alg })
    const token = await other.token()
    const accepts = new Validator(other.settings())
    assert.equal(accepts.validateSync(token).algorithm, alg)
    assert.equal((await accepts.validate(token)).algorithm, alg)
    assert.throws(() => validator.validateSync(token), { code: 'unknown_key' })
  }
})

test('a rejection has a code, and what the table says about it', async () => {
  const token = await issuer.token({ aud: 'https://orders.example' })
  const rejection = await validator.validate(token).catch((error) => error)
  assert(rejection instanceof Rejection && rejection instanceof Error)
  assert.equal(rejection.code, 'wrong_audience')
  assert.equal(rejection.message, `wrong_audience: ${rejection.detail}`)
  assert.match(rejection.detail, /https:\/\/orders\.example/)
  assert.equal(rejection.name, 'Rejection')
  assert.equal(rejection.retryable, false)
  assert.equal(rejection.meaning, CODES.wrong_audience.meaning)
  assert.equal(rejection.remedy, CODES.wrong_audience.remedy)
  assert.throws(() => validator.validateSync(token), { code: 'wrong_audience' })
})

test('the table is closed', () => {
  assert(Object.keys(CODES).length > 30)
  for (const told of Object.values(CODES)) {
    assert.deepEqual(Object.keys(told).sort(), ['meaning', 'remedy', 'retryable'])
    assert(told.meaning.endsWith('.') && told.remedy.endsWith('.'))
  }
  assert.equal(CODES.keys_unavailable.retryable, true)
  assert.throws(() => (CODES.expired.retryable = true), TypeError)
  assert.throws(() => (CODES.new = {}), TypeError)
})

test('the time is the argument, or the clock', async () => {
  const token = await issuer.token({ exp: seconds() + 60 })
  assert.equal(validator.validateSync(token).claims.sub, 'user:4217')
  assert.equal(validator.validateSync(token, {}).claims.sub, 'user:4217')
  const later = { now: seconds() + 91 }
  assert.throws(() => validator.validateSync(token, later), { code: 'expired' })
  assert.throws(() => validator.validateSync(token, { now: 0 }), { code: 'issued_in_future' })
  for (const now of [-1, 1.5, NaN, Infinity, '1', null, 2 ** 53]) {
    assert.throws(() => validator.validateSync(token, { now }), TypeError, String(now))
  }
})

test('settings decide', async () => {
  const day = 24 * 3600
  const year = await issuer.token({ exp: seconds() + 365 * day })
  const judge = (token, settings) => code(new Validator(issuer.settings(settings)).validate(token))
  assert.equal(await judge(year), 'lifetime_too_long')
  assert.equal(await judge(year, { maxLifetime: 400 * day }), 'valid')
  assert.equal(await judge(year, { maxLifetime: null }), 'valid')
  const old = await issuer.token({ exp: seconds() - 40, iat: seconds() - 100, nbf: seconds() - 100 })
  assert.equal(await judge(old), 'expired')
  assert.equal(await judge(old, { leeway: 60 }), 'valid')
  const good = await issuer.token()
  assert.equal(await judge(good, { audience: ['https://x.example', AUDIENCE] }), 'valid')
  assert.equal(await judge(good, { audience: 'https://x.example' }), 'wrong_audience')
  assert.equal(await judge(good, { algorithms: 'Ed25519' }), 'algorithm_not_accepted')
  assert.equal(await judge(good, { jwks: JSON.stringify(issuer.jwks) }), 'valid')
  assert.equal(await judge(good, { jwks: { [ISSUER]: issuer.jwks } }), 'valid')
  assert.equal(await judge(good, { acceptedTyp: 'JWT' }), 'wrong_type')
})

test('several issuers have a key set each', async () => {
  const other = await Issuer.make({ issuer: 'https://id.example/organizations' })
  const both = new Validator({
    issuer: [ISSUER, other.issuer],
    audience: AUDIENCE,
    jwks: { [ISSUER]: issuer.jwks, [other.issuer]: JSON.stringify(other.jwks) },
  })
  for (const one of [issuer, other]) {
    assert.equal((await both.validate(await one.token())).claims.iss, one.issuer)
  }
  const crossed = await other.token({ iss: ISSUER })
  assert.notEqual(await code(both.validate(crossed)), 'valid')
  await both.ready()
  assert.equal(both.status().issuers.length, 2)
})

test('claims are data, whatever they are called', async () => {
  const now = seconds()
  const text = JSON.stringify({
    iss: ISSUER,
    sub: 's',
    aud: AUDIENCE,
    client_id: 'c',
    iat: now,
    exp: now + 60,
    jti: 'AAAAAAAAAAAAAAAAAAAAAA.1.uH2cWxSAVDqNr0bqcvlyEA',
  })
  const extra =
    '"__proto__":{"admin":true,"list":[{"__proto__":{"x":1}}]},"toJSON":1,"constructor":2'
  const token = await issuer.signed(`${text.slice(0, -1)},${extra},"big":9007199254740993}`)
  const cached = new Validator(issuer.settings({ cache: 4 }))
  // The third answer is a copy of what was parsed.
  for (const accepts of [validator, cached, cached, cached]) {
    const { claims } = await accepts.validate(token)
    assert.equal(claims.admin, undefined)
    assert.equal(Object.getPrototypeOf(claims), Object.prototype)
    assert(Object.hasOwn(claims, '__proto__'))
    const own = Object.getOwnPropertyDescriptor(claims, '__proto__').value
    assert.equal(own.admin, true)
    assert.equal(Object.getPrototypeOf(own.list[0]), Object.prototype)
    assert.deepEqual([claims.toJSON, claims.constructor], [1, 2])
    assert.equal(claims.big, 9007199254740992)
  }
  assert.equal({}.admin, undefined)
  const twice = await issuer.signed(`${text.slice(0, -1)},"sub":"admin"}`)
  assert.equal(await code(validator.validate(twice)), 'duplicate_member')
})

test('what a caller does to its claims stays with it', async () => {
  const token = await issuer.token()
  const cached = new Validator(issuer.settings({ cache: 4 }))
  for (let time = 0; time < 5; time++) {
    const { claims } = await cached.validate(token)
    assert.deepEqual(claims.roles, ['buyer', 'reviewer'])
    assert.deepEqual(claims.cnf, { jkt: issuer.kid })
    claims.roles.push('admin')
    claims.cnf.jkt = 'x'
    claims.sub = 'admin'
  }
})

test('the cache hides nothing and mixes nothing up', async () => {
  const cached = new Validator(issuer.settings({ cache: 32 }))
  const tokens = await Promise.all(
    Array.from({ length: 200 }, (_, i) => issuer.token({ sub: `user:${i}`, exp: seconds() + 60 })),
  )
  for (let round = 0; round < 4; round++) {
    for (const [i, token] of tokens.entries()) {
      // Some are used again and again, so that they stay.
      for (const of of [i, i % 7]) {
        assert.equal((await cached.validate(tokens[of])).claims.sub, `user:${of}`)
      }
      const forged = token.slice(0, -8) + 'AAAAAAAA'
      assert.equal(await code(cached.validate(forged)), 'bad_signature')
    }
  }
  const now = seconds() + 91
  assert.throws(() => cached.validateSync(tokens[0], { now }), { code: 'expired' })
})

test('no input is more than a rejection', async () => {
  const good = await issuer.token()
  const inputs = {
    '': 'malformed_token',
    ' ': 'malformed_token',
    '..': 'malformed_token',
    '\0': 'malformed_token',
    [`${good}\0`]: 'malformed_token',
    [`${good}\ud800`]: 'malformed_token',
    [`\udfff${good}`]: 'malformed_token',
    [good.replace('e', '\u0165')]: 'malformed_token',
    [`Bearer ${good}`]: 'malformed_token',
    [`${good}\n`]: 'malformed_token',
    [good.slice(0, -1)]: 'malformed_token',
  }
  for (const [token, expected] of Object.entries(inputs)) {
    assert.equal(await code(validator.validate(token)), expected, JSON.stringify(token))
    assert.throws(() => validator.validateSync(token), { code: expected })
    assert.equal((await validator.explain(token)).rejection.code, expected)
  }
  for (const huge of [
    'a'.repeat(2 ** 28),
    '\ud83d\ude00'.repeat(2 ** 26),
    `${good}${'='.repeat(16384)}`,
  ]) {
    assert.equal(await code(validator.validate(huge)), 'oversize')
    assert.equal((await validator.explain(huge)).rejection.code, 'oversize')
  }
})

test('what is no string is a TypeError', async () => {
  const strange = [
    undefined,
    null,
    1,
    1n,
    true,
    {},
    [],
    Symbol('token'),
    () => 'token',
    new String('a.b.c'),
    Buffer.from('a.b.c'),
    new Proxy({}, { get: () => assert.fail('a token is not looked into') }),
    { toString: () => assert.fail('a token is not converted') },
  ]
  for (const token of strange) {
    assert.throws(() => validator.validateSync(token), TypeError)
    await assert.rejects(validator.validate(token), TypeError)
    await assert.rejects(validator.explain(token), TypeError)
  }
})

test('settings that are wrong are a TypeError that names them', () => {
  const wrong = [
    [undefined, /issuer/],
    [null, /issuer/],
    ['https://id.example', /issuer/],
    [{}, /`issuer` is missing/],
    [{ issuer: ISSUER }, /`audience` is missing/],
    [{ audiance: 'x' }, /`audiance` is no setting/],
    [{ issuer: '' }, /issuer/],
    [{ issuer: [] }, /issuer/],
    [{ issuer: [ISSUER, ISSUER], jwks: undefined }, /twice/],
    [{ issuer: [ISSUER, 'https://x.example'] }, /there are 2 issuers/],
    [{ issuer: 'https://\ud800.example' }, /`issuer` holds half a character/],
    [{ issuer: [ISSUER, 1] }, /`issuer`/],
    [{ issuer: 'not a url', jwks: undefined }, /not a url/],
    [{ audience: {} }, /`audience`/],
    [{ profile: 'lax' }, /lax/],
    [{ algorithms: ['HS256'] }, /HS256/],
    [{ algorithms: ['none'] }, /none/],
    [{ leeway: -1 }, /`leeway`/],
    [{ leeway: 1.5 }, /`leeway`/],
    [{ leeway: '30' }, /`leeway`/],
    [{ leeway: 301 }, /301/],
    [{ leeway: 2 ** 53 }, /`leeway`/],
    [{ maxLifetime: 0 }, /lifetime/],
    [{ maxLifetime: NaN }, /`maxLifetime`/],
    [{ acceptEddsa: 1 }, /`acceptEddsa`/],
    [{ log: 'yes' }, /yes/],
    [{ log: true }, /`log`/],
    [{ logLookup: 'guess' }, /guess/],
    [{ logLookup: 'digest', profile: 'entra' }, /by digest/],
    [{ attestation: 'maybe' }, /maybe/],
    [{ cache: -1 }, /`cache`/],
    [{ cache: Infinity }, /`cache`/],
    [{ tenants: ['x'] }, /tenants/],
    [{ anchor: 'not a key' }, /anchor|key/],
    [{ anchor: null }, /`anchor`/],
    [{ jwks: 7 }, /`jwks`/],
    [{ jwks: [] }, /`jwks`/],
    [{ jwks: { 'https://x.example': { keys: [] } } }, /x\.example/],
    [{ jwksUri: {}, jwks: undefined, issuer: [ISSUER], audience: 5 }, /`audience`/],
    [{ jwksUri: 'file:///etc/passwd', jwks: undefined }, /file/],
    [{ rootCertificates: 'no PEM' }, /certificate/],
    [{ bounds: { coolDown: -1 } }, /coolDown/],
    [{ bounds: { warp: 9 } }, /`bounds\.warp` is no setting/],
    [{ bounds: { waiting: 0.5 } }, /`bounds\.waiting` is a whole number/],
    [{ bounds: { keep: 1e300 } }, /keep/],
    [{ bounds: { coolDown: 0 } }, /cool_down/],
    [{ bounds: [] }, /`bounds`/],
    [{ onFinding: 'log' }, /`onFinding`/],
  ]
  for (const [change, told] of wrong) {
    const whole = typeof change === 'object' && change && !told.source.includes('missing')
    const settings = whole ? issuer.settings(change) : change
    assert.throws(
      () => new Validator(settings),
      (error) => {
        assert(error instanceof TypeError, `${JSON.stringify(change)}: ${error}`)
        assert.match(error.message, told)
        return true
      },
    )
  }
})

test('a key set that cannot be believed is a rejection', () => {
  for (const jwks of ['', '{', '{"keys":[],"keys":[]}', '[]', '\ud800', 'x'.repeat(2 ** 24)]) {
    assert.throws(() => new Validator(issuer.settings({ jwks })), { code: 'key_set_refused' })
  }
})

test('settings are read once, and what they throw is thrown', async () => {
  let reads = 0
  const settings = issuer.settings()
  const counted = Object.defineProperty({ ...settings }, 'audience', {
    enumerable: true,
    get: () => (reads++ ? 'https://evil.example' : AUDIENCE),
  })
  const token = await issuer.token()
  assert.equal(await code(new Validator(counted).validate(token)), 'valid')
  assert.equal(reads, 1)
  const own = new Error('mine')
  const failing = {
    get issuer() {
      throw own
    },
  }
  assert.throws(() => new Validator(failing), own)
  const trap = () => {
    throw own
  }
  assert.throws(() => new Validator(new Proxy({}, { ownKeys: trap })), own)
  assert.equal(await code(new Validator(new Proxy(settings, {})).validate(token)), 'valid')
  const { proxy, revoke } = Proxy.revocable(settings, {})
  revoke()
  assert.throws(() => new Validator(proxy), TypeError)
  // Inherited settings are settings, the misspelled ones too.
  assert.equal(await code(new Validator(Object.create(settings)).validate(token)), 'valid')
  assert.throws(() => new Validator(Object.create({ ...settings, acceptall: true })), /acceptall/)
  const circular = { keys: [] }
  circular.self = circular
  assert.throws(() => new Validator(issuer.settings({ jwks: circular })), TypeError)
})

test('a judgement step by step', async () => {
  const good = await validator.explain(await issuer.token())
  assert.equal(good.rejection, null)
  assert.equal(good.accepted.claims.sub, 'user:4217')
  assert(good.steps.length > 10 && good.steps.every((step) => step.passed))
  const bad = await validator.explain(await issuer.token({ aud: 'x' }))
  assert.equal(bad.accepted, null)
  assert.equal(bad.rejection.code, 'wrong_audience')
  const last = bad.steps.at(-1)
  assert.deepEqual([last.check, last.passed], ['audience', false])
})

test('methods belong to validators', () => {
  const { validateSync } = validator
  assert.throws(() => validateSync('a.b.c'), TypeError)
  assert.throws(() => Validator.prototype.validateSync.call({}, 'a.b.c'), TypeError)
  assert.throws(() => Validator(), TypeError)
})

test('require gives the same classes', () => {
  const required = require('chancery')
  assert.equal(required.Rejection, Rejection)
  assert.equal(required.Validator, Validator)
})

test('other copies of the package, and the same one loaded again, live side by side', async () => {
  const token = await issuer.token()
  const { claims } = await validator.validate(token)
  const copy = mkdtempSync(join(tmpdir(), 'chancery-copy-'))
  const folder = dirname(require.resolve('chancery/package.json'))
  cpSync(folder, copy, { recursive: true })
  for (const name of Object.keys(require.cache)) {
    if (name.startsWith(folder)) delete require.cache[name]
  }
  for (const other of [require(copy), require('chancery')]) {
    assert.notEqual(other.Validator, Validator)
    assert.deepEqual((await new other.Validator(issuer.settings()).validate(token)).claims, claims)
  }
  assert.deepEqual((await validator.validate(token)).claims, claims)
  rmSync(copy, { recursive: true })
})

test('the types name every code', () => {
  const types = readFileSync(join(dirname(require.resolve('chancery')), 'index.d.cts'), 'utf8')
  const [, union] = types.match(/type RejectionCode =([^/]+)/)
  const named = union.match(/'[a-z_]+'/g).map((code) => code.slice(1, -1))
  assert.deepEqual(named, Object.keys(CODES))
})
