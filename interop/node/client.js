// A client: asks for tokens with jose and fetch.
//
// usage: node client.js ISSUER CLIENT_ID KEY_FILE AUDIENCE

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SignJWT, importPKCS8 } from 'jose'

export const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
// At most 120 s are accepted; a proof is used at once.
const PROOF_SECONDS = 60
// A new proof may succeed a moment later. The others are answers, not accidents.
const TRY_AGAIN = new Set([
  'proof_before_start',
  'no_active_key',
  'clock_untrusted',
  'voided',
  'rate_limited',
  'temporarily_unavailable',
])
const ATTEMPTS = 8

// The service said no. `reason` is one of the codes of docs/clients.md.
export class Refused extends Error {
  constructor(status, reason, detail) {
    super(`${status} ${reason}: ${detail}`)
    Object.assign(this, { status, reason, detail })
  }
}

// A client of one realm, known there by the public half of `pem` (PKCS#8).
export class Client {
  static async open(issuer, clientId, pem, { alg = 'ES256', kid } = {}) {
    const answer = await fetch(`${issuer}/.well-known/openid-configuration`)
    const metadata = await answer.json()
    if (metadata.issuer !== issuer) throw new Error(`discovery names ${metadata.issuer}`)
    const key = await importPKCS8(pem, alg)
    return Object.assign(new Client(), { issuer, clientId, key, alg, kid, metadata })
  }

  // A JWS that says who asks. Each is used once: `jti` makes it unique.
  proof(typ, members = {}) {
    // A client with one key may leave `kid` out.
    const header = { alg: this.alg, typ, ...(this.kid && { kid: this.kid }) }
    const now = Math.floor(Date.now() / 1000)
    return new SignJWT({ ...members, jti: randomUUID() })
      .setProtectedHeader(header)
      .setIssuer(this.clientId)
      .setSubject(this.clientId)
      .setAudience(this.issuer)
      .setIssuedAt(now)
      .setExpirationTime(now + PROOF_SECONDS)
      .sign(this.key)
  }

  // One token from the OAuth token endpoint, with `private_key_jwt`.
  async token(audience, scope) {
    const answer = await patiently(async () => {
      const form = new URLSearchParams({
        grant_type: 'client_credentials',
        client_assertion_type: ASSERTION_TYPE,
        client_assertion: await this.proof('client-authentication+jwt'),
        audience,
        ...(scope && { scope }),
      })
      return post(this.metadata.token_endpoint, 'application/x-www-form-urlencoded', `${form}`)
    })
    return answer.access_token
  }

  // Tokens by one signed issuance request: nobody on the way can alter what is asked for.
  // Answers one member for each request, in their order: with `access_token`, or with `error`.
  async issue(requests, { proofs = false } = {}) {
    const url = this.metadata.chancery_issuance_endpoint + (proofs ? '?proof=true' : '')
    const answer = await patiently(async () =>
      post(url, 'application/jwt', await this.proof('chancery-request+jwt', { requests })),
    )
    return answer.tokens
  }
}

// Posts a body and reads the JSON answer; throws `Refused` for an error.
export async function post(url, kind, body) {
  const options = { method: 'POST', headers: { 'content-type': kind }, body }
  const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(15_000) })
  const told = await answer.json()
  if (answer.ok) return told
  // The token endpoint answers as RFC 6749 says, the others as RFC 9457 says.
  throw new Refused(answer.status, told.reason ?? told.code, told.error_description ?? told.detail)
}

// Asks again, with a new proof each time, while the refusal is one that passes.
async function patiently(ask) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask()
    } catch (error) {
      if (!TRY_AGAIN.has(error.reason) || attempt === ATTEMPTS) throw error
      await sleep(1000)
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [issuer, clientId, keyFile, audience] = process.argv.slice(2)
  const client = await Client.open(issuer, clientId, readFileSync(keyFile, 'utf8'))
  console.log(await client.token(audience))
}
