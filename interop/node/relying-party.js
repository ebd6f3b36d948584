// A relying party: accepts tokens with jose, and checks what jose does not know.
//
// usage: node relying-party.js ISSUER AUDIENCE TOKEN

import { fileURLToPath } from 'node:url'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const CLAIMS = ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id']

// Accepts tokens of one issuer for one audience.
export class RelyingParty {
  static async open(issuer, audience, { cacheMaxAge = 150_000, cooldownDuration = 5_000 } = {}) {
    const answer = await fetch(`${issuer}/.well-known/openid-configuration`)
    const metadata = await answer.json()
    if (metadata.issuer !== issuer) throw new Error(`discovery names ${metadata.issuer}`)
    // jose does not read `max-age`; 150 s is that of the default schedule.
    const options = { cacheMaxAge, cooldownDuration }
    const keys = createRemoteJWKSet(new URL(metadata.jwks_uri), options)
    return Object.assign(new RelyingParty(), { issuer, audience, keys })
  }

  // The claims of a token that is good; throws a `JOSEError` for any other. jose takes no key
  // for an algorithm that is not the key's own `alg`.
  async accept(token) {
    const { payload, protectedHeader } = await jwtVerify(token, this.keys, {
      issuer: this.issuer,
      audience: this.audience,
      typ: 'at+jwt',
      requiredClaims: CLAIMS,
    })
    if (!protectedHeader.kid) throw new errors.JWTInvalid('the token names no key')
    // A key speaks for one issuer, and signs in one window.
    const key = this.keys.jwks().keys.find(({ kid }) => kid === protectedHeader.kid)
    if (key?.issuer !== this.issuer) {
      throw new errors.JWTClaimValidationFailed('the key speaks for another issuer', payload, 'iss')
    }
    if (!(key.nbf <= payload.iat && payload.iat < key.signs_until)) {
      throw new errors.JWTClaimValidationFailed("issued outside the key's window", payload, 'iat')
    }
    return payload
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [issuer, audience, token] = process.argv.slice(2)
  const accepts = await RelyingParty.open(issuer, audience)
  console.log(JSON.stringify(await accepts.accept(token)))
}
