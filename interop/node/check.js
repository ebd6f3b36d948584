// Tries jose on a running service in development mode.
//
// usage: node check.js URL DATA_FOLDER CHANCERY
//
// Prints a line for each realm and algorithm, and exits 1 at the first failure. `cargo xtask node`
// starts the service and runs this.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import * as jose from 'jose'
import { ASSERTION_TYPE, Client, Refused, post } from './client.js'
import { RelyingParty } from './relying-party.js'

const AUDIENCE = 'https://api.example'
const OTHER_AUDIENCE = 'https://orders.example'
const CLIENT = 'demo'
const FORM = 'application/x-www-form-urlencoded'
const REALMS = {
  consumers: ['ES256', 'RS256', 'PS256', 'Ed25519'],
  organizations: ['Ed25519', 'ES384', 'ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87'],
}
// jose signs and verifies by the runtime's WebCrypto: Node 20 has all but the post-quantum ones.
const KNOWN_EVERYWHERE = new Set(['ES256', 'ES384', 'RS256', 'PS256', 'Ed25519'])

const [url, data, chancery] = process.argv.slice(2)
const pem = await readFile(`${data}/demo-client.pem`, 'utf8')
const known = new Set()

for (const [realm, algorithms] of Object.entries(REALMS)) {
  await plainHttp(realm, algorithms[0])
  const answer = await fetch((await metadata(realm)).jwks_uri)
  const { keys } = await answer.json()
  const remote = jose.createRemoteJWKSet(new URL((await metadata(realm)).jwks_uri))
  for (const alg of algorithms) {
    const token = await command('token', realm, '--audience', AUDIENCE, '--alg', alg)
    if (await knows(keys.find((key) => key.alg === alg))) await validate(realm, alg, token, remote)
    else say('jose', realm, alg, 'not known to the library on this runtime')
  }
  await client(realm)
  await relyingParty(realm, algorithms)
}
await asPrograms()
await oneRealmIsNotTheOther('consumers', 'organizations')
await oneRealmIsNotTheOther('organizations', 'consumers')
await expiry()

function issuer(realm) {
  return `${url}/${realm}`
}

async function metadata(realm) {
  return (await fetch(`${issuer(realm)}/.well-known/openid-configuration`)).json()
}

async function command(name, realm, ...rest) {
  const words = [name, '--data', data, '--realm', realm, ...rest]
  return (await promisify(execFile)(chancery, words)).stdout.trim()
}

// Whether jose on this runtime can use the key; for most algorithms that is not a question.
async function knows(jwk) {
  try {
    await jose.importJWK(jwk)
    known.add(jwk.alg)
    return true
  } catch (error) {
    assert(!KNOWN_EVERYWHERE.has(jwk.alg), error)
    return false
  }
}

// The default algorithm of each realm, as anybody with an HTTP client gets it.
async function plainHttp(realm, alg) {
  const form = new URLSearchParams({
    grant_type: 'client_credentials',
    client_assertion_type: ASSERTION_TYPE,
    client_assertion: await command('assertion', realm),
    audience: AUDIENCE,
    scope: 'read',
  })
  const answer = await post((await metadata(realm)).token_endpoint, FORM, `${form}`)
  assert.equal(answer.token_type, 'Bearer')
  assert.equal(answer.scope, 'read')
  const header = jose.decodeProtectedHeader(answer.access_token)
  assert.deepEqual([header.alg, header.typ], [alg, 'at+jwt'])
  const { iat, exp } = jose.decodeJwt(answer.access_token)
  assert.equal(exp - iat, answer.expires_in)
  say('http', realm, alg, 'token received by plain HTTP')
}

// What the documentation of jose shows.
async function validate(realm, alg, token, keys) {
  const expected = { issuer: issuer(realm), audience: AUDIENCE }
  const { payload, protectedHeader } = await jose.jwtVerify(token, keys, expected)
  assert.equal(protectedHeader.alg, alg)
  assert.deepEqual([payload.sub, payload.client_id], [CLIENT, CLIENT])
  for (const forged of tampered(token)) {
    await refused('ERR_JWS_SIGNATURE_VERIFICATION_FAILED', () =>
      jose.jwtVerify(forged, keys, expected),
    )
  }
  const elsewhere = { ...expected, audience: OTHER_AUDIENCE }
  await refused('ERR_JWT_CLAIM_VALIDATION_FAILED', () => jose.jwtVerify(token, keys, elsewhere))
  say('jose', realm, alg, 'validated')
}

// Proofs that jose makes: assertions and signed issuance requests.
async function client(realm) {
  const kid = await jose.calculateJwkThumbprint(
    await jose.exportJWK(await jose.importPKCS8(pem, 'ES256', { extractable: true })),
  )
  const demo = await Client.open(issuer(realm), CLIENT, pem, { kid })
  const accepts = await RelyingParty.open(issuer(realm), AUDIENCE)
  const claims = await accepts.accept(await demo.token(AUDIENCE, 'read write'))
  assert.equal(claims.scope, 'read write')
  const nameless = await Client.open(issuer(realm), CLIENT, pem)
  await accepts.accept(await nameless.token(AUDIENCE))

  const form = new URLSearchParams({
    grant_type: 'client_credentials',
    client_assertion_type: ASSERTION_TYPE,
    client_assertion: await demo.proof('client-authentication+jwt'),
    audience: AUDIENCE,
  })
  const ask = () => post(demo.metadata.token_endpoint, FORM, `${form}`)
  await ask()
  await reason(401, 'proof_replayed', ask)
  await reason(400, 'audience_not_granted', () => demo.token('https://elsewhere.example'))
  const stranger = await Client.open(issuer(realm), 'stranger', pem)
  await reason(401, 'unknown_client', () => stranger.token(AUDIENCE))
  say('jose', realm, 'ES256', 'client assertion accepted')

  const { publicKey } = await jose.generateKeyPair('ES256')
  const jkt = await jose.calculateJwkThumbprint(await jose.exportJWK(publicKey))
  const asked = { aud: AUDIENCE, sub: 'user:7', lifetime: 60, claims: { tier: 'gold' } }
  const denied = { aud: AUDIENCE, scope: 'admin' }
  const [first, second, third] = await demo.issue([{ ...asked, cnf: { jkt } }, denied, asked], {
    proofs: true,
  })
  const bound = await accepts.accept(first.access_token)
  assert.deepEqual([bound.cnf, bound.tier, bound.sub], [{ jkt }, 'gold', 'user:7'])
  assert.equal(bound.exp - bound.iat, 60)
  assert(first.proof.startsWith('c2sp.org/tlog-proof@v1\n'), first.proof)
  assert.equal(second.error, 'scope_not_granted')
  assert.equal((await accepts.accept(third.access_token)).cnf, undefined)
  await reason(403, 'scope_not_granted', () => demo.issue([denied]))
  say('jose', realm, 'ES256', 'signed issuance request accepted')
}

// The relying party of the documentation: jose, and what it does not check.
async function relyingParty(realm, algorithms) {
  const accepts = await RelyingParty.open(issuer(realm), AUDIENCE)
  for (const alg of algorithms.filter((alg) => known.has(alg))) {
    const token = await command('token', realm, '--audience', AUDIENCE, '--alg', alg)
    const { iat } = await accepts.accept(token)
    for (const forged of tampered(token)) {
      await refused('ERR_JWS_SIGNATURE_VERIFICATION_FAILED', () => accepts.accept(forged))
    }
    const other = await command('token', realm, '--audience', OTHER_AUDIENCE, '--alg', alg)
    await refused('ERR_JWT_CLAIM_VALIDATION_FAILED', () => accepts.accept(other))

    const { kid } = jose.decodeProtectedHeader(token)
    const served = accepts.keys
    for (const change of [{ signs_until: iat }, { nbf: iat + 1 }, { issuer: 'https://x.example' }]) {
      const changed = structuredClone(served.jwks())
      Object.assign(changed.keys.find((key) => key.kid === kid), change)
      accepts.keys = jose.createLocalJWKSet(changed)
      await refused('ERR_JWT_CLAIM_VALIDATION_FAILED', () => accepts.accept(token))
    }
    accepts.keys = served
    await accepts.accept(token)
    say('relying-party.js', realm, alg, "validated, with the key's window and issuer")
  }
  const assertion = await command('assertion', realm)
  await assert.rejects(accepts.accept(assertion), jose.errors.JOSEError)
}

// The two scripts of the documentation, run as it says.
async function asPrograms() {
  const run = async (name, ...rest) => {
    const file = fileURLToPath(new URL(name, import.meta.url))
    const words = [file, issuer('consumers'), ...rest]
    return (await promisify(execFile)(process.execPath, words)).stdout.trim()
  }
  const token = await run('client.js', CLIENT, `${data}/demo-client.pem`, AUDIENCE)
  const claims = JSON.parse(await run('relying-party.js', AUDIENCE, token))
  assert.equal(claims.sub, CLIENT)
  say('client.js', 'consumers', 'ES256', 'accepted by relying-party.js')
}

// A token of one realm means nothing in the other: its key is not in the other's set.
async function oneRealmIsNotTheOther(mine, other) {
  const alg = REALMS[mine][0]
  const token = await command('token', mine, '--audience', AUDIENCE)
  const accepts = await RelyingParty.open(issuer(other), AUDIENCE)
  await refused('ERR_JWKS_NO_MATCHING_KEY', () => accepts.accept(token))
  say('jose', mine, alg, `refused by ${other}`)
}

// A token of two seconds is good, and then it is not.
async function expiry() {
  const accepts = await RelyingParty.open(issuer('consumers'), AUDIENCE)
  const demo = await Client.open(issuer('consumers'), CLIENT, pem)
  const [answer] = await demo.issue([{ aud: AUDIENCE, lifetime: 2 }])
  const { exp } = await accepts.accept(answer.access_token)
  await sleep(Math.max(0, exp * 1000 - Date.now()) + 100)
  await refused('ERR_JWT_EXPIRED', () => accepts.accept(answer.access_token))
  say('jose', 'consumers', 'ES256', 'refused once it has expired')
}

// The token with another subject, and with another signature.
function tampered(token) {
  const [header, payload, signature] = token.split('.')
  const claims = JSON.parse(Buffer.from(payload, 'base64url'))
  const other = Buffer.from(JSON.stringify({ ...claims, sub: 'admin' })).toString('base64url')
  const bytes = Buffer.from(signature, 'base64url')
  bytes[bytes.length >> 1] ^= 1
  return [
    `${header}.${other}.${signature}`,
    `${header}.${payload}.${bytes.toString('base64url')}`,
  ]
}

// Asks for what must be refused, for this reason.
async function reason(status, code, ask) {
  await assert.rejects(ask, (error) => {
    assert(error instanceof Refused, error)
    assert.deepEqual([error.status, error.reason], [status, code])
    return true
  })
}

// Does what must fail, with this error of jose.
async function refused(code, ask) {
  await assert.rejects(ask, { code })
}

function say(library, realm, alg, what) {
  console.log(library.padEnd(17) + realm.padEnd(15) + alg.padEnd(11) + what)
}
